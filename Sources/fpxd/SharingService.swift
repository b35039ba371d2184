// SharingService: gives the unit its time, and tells it when others have written; whichever unit there is.

import Etcd
import SeatSharing
import ServiceLifecycle

struct SharingService: Service {
    private static let watchedAgainAfter: Duration = .seconds(1)

    let seats: SharedSeats

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var watched: (link: SharedSeats.Link, task: Task<Void, Never>)?
            while !Task.isCancelled {
                let wait = seats.tick()
                let link = seats.link
                if watched?.link !== link {
                    watched?.task.cancel()
                    watched = link.map { link in (link, Task { await watch(link) }) }
                }
                try? await Task.sleep(for: .nanoseconds(wait))
            }
            watched?.task.cancel()
            await watched?.task.value
        }
    }

    /// A watch only shortens the wait. Where it breaks, heartbeats go on.
    private func watch(_ link: SharedSeats.Link) async {
        while !Task.isCancelled {
            do {
                for try await batch in link.client.watch(link.store.prefix) {
                    seats.nudge(revision: batch.revision, of: link)
                }
            } catch {
                // What is wrong with etcd is told by those who need its answers.
            }
            try? await Task.sleep(for: Self.watchedAgainAfter)
        }
    }
}
