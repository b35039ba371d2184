import Foundation
import LicenseClient
import Licensing
import Synchronization
import Testing

@Suite struct AddressWatchTests {
    private final class Known: Sendable {
        let addresses: Mutex<[String]>
        let calls = Mutex(0)
        init(_ addresses: [String]) { self.addresses = Mutex(addresses) }
    }

    private func seconds(of known: Known, listens: Bool) async -> Double {
        let begin = ContinuousClock.now
        let task = Task {
            await AddressWatch(listens: listens, known: { known.addresses.withLock { $0 } }) {
                known.addresses.withLock { $0 = Hardware.addresses() }
                known.calls.withLock { $0 += 1 }
            }.run()
        }
        while known.calls.withLock({ $0 }) == 0, ContinuousClock.now - begin < .seconds(30) {
            try? await Task.sleep(for: .milliseconds(10))
        }
        let took = (ContinuousClock.now - begin) / .seconds(1)
        task.cancel()
        await task.value
        return took
    }

    @Test(arguments: [true, false])
    func whatHasComeIsToldAtOnce(listens: Bool) async throws {
        try #require(!Hardware.addresses().isEmpty, "needs an interface that is up")
        #expect(await seconds(of: Known([]), listens: listens) < 5)
    }

    @Test func whatIsGoneIsToldWhenItIsGoneForLong() async {
        let took = await seconds(of: Known(Hardware.addresses() + ["192.0.2.99"]), listens: true)
        #expect((9...20).contains(took), "\(took) s")
    }

    /// Where the kernel does not tell, it is looked up.
    @Test func withoutTheKernelsWord() async throws {
        let known = Known(Hardware.addresses())
        try #require(!known.addresses.withLock { $0 }.isEmpty, "needs an interface that is up")
        let task = Task {
            await AddressWatch(listens: false, known: { known.addresses.withLock { $0 } }) {
                known.addresses.withLock { $0 = Hardware.addresses() }
                known.calls.withLock { $0 += 1 }
            }.run()
        }
        // What was there at the start is not news.
        try await Task.sleep(for: .milliseconds(500))
        #expect(known.calls.withLock { $0 } == 0)
        known.addresses.withLock { $0 = [] }
        for _ in 0..<1000 where known.calls.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(10)) }
        #expect(known.calls.withLock { $0 } == 1)
        task.cancel()
        await task.value
    }
}
