import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions

@Suite struct FieldDescriptorTests {
    @Test func keyedSessionsGiveTheirDescriptorsBack() throws {
        let kept = try Descriptors.kept {
            for _ in 0..<3 {
                let fixture = try Fixture(cap: 10)
                let process = try IdleProcess()
                _ = try fixture.admit("one", owner: try fixture.watch(process))
                _ = try fixture.admit("two", client: "192.0.2.1", port: 1)
                try fixture.restart { process.kill() }
                #expect(
                    eventually {
                        fixture.sessions.tick()
                        return fixture.sessions.list(limit: 0).total == 1
                    })
                #expect(try fixture.release("two"))
            }
        }
        #expect(
            Field.row(
                "descriptors.13f", "keyed sessions, a daemon's restart and a proxy's death, three times over",
                expected: "0 more open", found: "\(kept) more open"))
    }
}
