// SharingService: gives the unit its time, and tells it when others have written.

import Etcd
import SeatSharing
import ServiceLifecycle

struct SharingService: Service {
    private static let watchedAgainAfter: Duration = .seconds(1)

    let seats: SharedSeats

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskGroup { group in
                group.addTask { await tick() }
                if let link = seats.link { group.addTask { await watch(link) } }
            }
        }
    }

    private func tick() async {
        while !Task.isCancelled {
            let wait = seats.tick()
            try? await Task.sleep(for: .nanoseconds(wait))
        }
    }

    /// A watch only shortens the wait. Where it breaks, heartbeats go on.
    private func watch(_ link: SharedSeats.Link) async {
        while !Task.isCancelled {
            do {
                for try await batch in link.client.watch(link.prefix) { seats.nudge(revision: batch.revision) }
            } catch {
                // What is wrong with etcd is told by those who need its answers.
            }
            try? await Task.sleep(for: Self.watchedAgainAfter)
        }
    }
}
