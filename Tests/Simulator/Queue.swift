// Queue: what will happen, by time; of one time, first come, first served.

import SeatSharing

struct Queue<Item> {
    private struct Entry {
        let time: Nanoseconds
        let order: Int
        let item: Item

        static func < (a: Entry, b: Entry) -> Bool { (a.time, a.order) < (b.time, b.order) }
    }

    private var heap: [Entry] = []
    private var count = 0

    mutating func add(_ time: Nanoseconds, _ item: Item) {
        count += 1
        heap.append(Entry(time: time, order: count, item: item))
        var child = heap.count - 1
        while child > 0, heap[child] < heap[(child - 1) / 2] {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func next() -> (time: Nanoseconds, item: Item)? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return (first.time, first.item) }
        heap[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child] < heap[least] {
                least = child
            }
            guard least != parent else { return (first.time, first.item) }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
