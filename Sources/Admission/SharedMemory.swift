// SharedMemory: the one place where the engine touches raw memory.
//
// Everything in a segment that more than one thread may touch is a 64-bit word or an aligned pair of them, and is reached only
// through `Word` and `Pair`. Their loads acquire and their stores release, which costs nothing on x86-64 and lets the comments
// of the algorithm speak of order alone.

import CAdmission
import Synchronization

/// The address of a 64-bit word in the segment.
@safe
@usableFromInline
package struct Word {
    @usableFromInline let address: UnsafeMutablePointer<Atomic<UInt64>>

    @inlinable @inline(__always)
    package init(_ memory: UnsafeMutableRawPointer, at offset: Int) {
        unsafe address = (memory + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inlinable @inline(__always)
    package func load() -> UInt64 { unsafe address.pointee.load(ordering: .acquiring) }

    @inlinable @inline(__always)
    package func store(_ value: UInt64) { unsafe address.pointee.store(value, ordering: .releasing) }

    /// A full barrier whether it exchanges or not.
    @inlinable @inline(__always)
    package func compareExchange(_ expected: UInt64, _ desired: UInt64) -> (exchanged: Bool, original: UInt64) {
        unsafe address.pointee.compareExchange(expected: expected, desired: desired, ordering: .sequentiallyConsistent)
    }

    /// Adds and returns the value before; a full barrier.
    @inlinable @inline(__always) @discardableResult
    package func add(_ value: UInt64) -> UInt64 {
        unsafe address.pointee.wrappingAdd(value, ordering: .sequentiallyConsistent).oldValue
    }

    /// Adds, and orders nothing: for statistics that several threads count.
    @inlinable @inline(__always)
    package func count(_ value: UInt64) {
        _ = unsafe address.pointee.wrappingAdd(value, ordering: .relaxed)
    }

    @inlinable @inline(__always)
    package func exchange(_ value: UInt64) -> UInt64 {
        unsafe address.pointee.exchange(value, ordering: .sequentiallyConsistent)
    }

    @inlinable @inline(__always)
    package func insert(bits: UInt64) {
        _ = unsafe address.pointee.bitwiseOr(bits, ordering: .sequentiallyConsistent)
    }

    @inlinable @inline(__always)
    package func remove(bits: UInt64) {
        _ = unsafe address.pointee.bitwiseAnd(~bits, ordering: .sequentiallyConsistent)
    }

    @inlinable @inline(__always)
    package func raise(to value: UInt64) {
        _ = unsafe address.pointee.max(value, ordering: .relaxed)
    }
}

/// The address of two words, 16-byte aligned, that change together by one 128-bit compare-and-swap.
@safe
@usableFromInline
package struct Pair {
    @usableFromInline let memory: UnsafeMutableRawPointer

    @inlinable @inline(__always)
    package init(_ memory: UnsafeMutableRawPointer, at offset: Int) {
        unsafe self.memory = memory + offset
    }

    @inlinable package var low: Word { unsafe Word(memory, at: 0) }
    @inlinable package var high: Word { unsafe Word(memory, at: 8) }

    /// Swaps both words when both are as expected; a full barrier either way.
    @inlinable @inline(__always)
    package func compareAndSwap(_ expected: (low: UInt64, high: UInt64), _ desired: (low: UInt64, high: UInt64)) -> Bool {
        unsafe fpx_pair_compare_and_swap(
            memory,
            fpx_pair(low: expected.low, high: expected.high),
            fpx_pair(low: desired.low, high: desired.high))
    }

    @inlinable @inline(__always)
    package func prefetchForWrite() { unsafe fpx_prefetch_for_write(memory) }
}
