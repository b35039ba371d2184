import Foundation
import LicenseClient
import Licensing
import Synchronization
import Testing

/// What a crash after each step of a renewal leaves: a licence in force that verifies, and no renewal lost or done twice.
///
/// Each file is put in place as one step (StoredFile), so the steps are all the states that there are.
@Suite struct CrashTests {
    private static let files = [
        "license.lic", "license.lic.previous", "state/authority", "state/authority.previous", "state/license.lic",
        "state/license.lic.previous", "state/keys/k1.pem", "state/keys/k2.pem",
    ]

    /// The steps of the second renewal, in their order, by the files that they change.
    private static let steps: [[String]] = [
        ["state/authority", "state/authority.previous"], ["state/keys/k1.pem", "state/keys/k2.pem"],
        ["license.lic.previous"], ["license.lic"], ["state/license.lic", "state/license.lic.previous"],
    ]

    @Test(arguments: 0...steps.count) func aCrashAfterAStep(_ done: Int) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        let before = Dictionary(uniqueKeysWithValues: Self.files.map { ($0, station.read($0)) })
        // The second renewal, of which the files are taken when the question is written and when all is done.
        station.set(start + day)
        let second = try SigningKey(id: "k2")
        var forge = Forge(station, epoch: 2, seats: 80)
        forge.keys.append(.init(kid: "k2", pem: second.publicPEM))
        let good = forge
        let asked = Mutex<[String: String]>([:])
        station.server.react { question in
            asked.withLock { taken in
                for name in ["state/authority", "state/authority.previous"] { taken[name] = station.read(name) }
            }
            return .send((try? await good.bytes(for: question)) ?? [])
        }
        _ = try await station.renewal.renew().get()
        let after = Dictionary(uniqueKeysWithValues: Self.files.map { ($0, station.read($0)) })
        let question = try #require(station.server.questions.withLock { $0.last })

        // As many steps as were done before the crash.
        var left = before
        for (index, names) in Self.steps.prefix(done).enumerated() {
            for name in names { left[name] = index == 0 ? asked.withLock { $0[name] } : after[name] }
        }
        for (name, text) in left {
            let path = station.folder + "/" + name
            if let text {
                try Data(text.utf8).write(to: URL(filePath: path))
            } else {
                try? FileManager.default.removeItem(atPath: path)
            }
        }

        // The next start: the licence in force verifies, and is the new one as soon as that one is in place.
        let next = try await station.restarted()
        let status = next.keeper.status()
        let isInPlace = done >= 4
        #expect(status.state == .active && status.warnings == [] && status.claims?.epoch == (isInPlace ? 2 : 1))
        #expect(status.cap(of: .furl) == (isInPlace ? 2000 : 1000))
        if isInPlace {
            // Nothing is asked twice: it is as if the outcome had been written down.
            #expect(next.keeper.record.question == nil && next.keeper.record.lastSuccess == start + day)
            #expect(await next.renewal.renewIfDue() == nil)
        } else {
            // Nothing is lost: the question is asked again, under its name where it had one.
            station.server.react { question in .send((try? await good.bytes(for: question)) ?? []) }
            #expect(try await next.renewal.renew().get().epoch == 2)
            let again = try #require(station.server.questions.withLock { $0.last })
            #expect((again.id == question.id) == (done > 0) && again.body == question.body)
        }
    }

    /// The record is written a thousand times while it is read: whoever reads sees one that was written, whole.
    @Test func aRecordIsWholeAtEachInstant() async throws {
        let station = try await Station()
        let path = station.keeper.configuration.recordFile
        station.keeper.remember { $0.lastContact = 1 }
        let reads = Mutex(0)
        let isDone = Mutex(false)
        let reader = Thread {
            var seen = 0
            while !isDone.withLock({ $0 }) {
                let (record, trouble) = AuthorityRecord.read(path)
                #expect(trouble == nil && record.lastContact >= seen)
                seen = record.lastContact
                reads.withLock { $0 += 1 }
            }
        }
        reader.start()
        while reads.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(1)) }
        for time in 2...1000 { station.keeper.remember { $0.lastContact = time } }
        isDone.withLock { $0 = true }
        while !reader.isFinished { try await Task.sleep(for: .milliseconds(1)) }
    }
}
