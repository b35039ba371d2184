import Foundation
import TestSupport
import Testing

@testable import Etcd

/// What etcd answers, or whoever stands in its place, costs no more than its length explains.
@Suite struct FieldCost {
    @Test(arguments: HostileJSON.families.indices)
    func answers(_ index: Int) async throws {
        let (name, text) = HostileJSON.families[index]
        let growth = await Cost.growth(length: 8 << 10, factor: 8) { length in
            let bytes = Array(text(length).utf8)
            _ = try? JSONReader.read(bytes) { reader throws(JSONFault) in try EtcdRange(&reader) }
            _ = try? JSONReader.read(bytes) { reader throws(JSONFault) in try EtcdRefusal(&reader) }
            // The same where a text of ours is expected.
            let refusal = Array(text(length).replacing("\"a\":", with: "\"message\":", maxReplacements: 1).utf8)
            _ = try? JSONReader.read(refusal) { reader throws(JSONFault) in try EtcdRefusal(&reader) }
        }
        #expect(
            Field.row(
                "daemon.8", "etcd answers with \(name): what 8 times the length costs", expected: "8 times",
                found: growth < 3 ? "8 times" : "\(growth * 8) times"))
    }

    /// A watch whose lines are empty: none of them is worth a copy of all that follow it.
    @Test func linesOfAWatch() async throws {
        var seconds: [Double] = []
        for lines in [50_000, 400_000] {
            let gateway = try await Gateway()
            defer { gateway.stop() }
            let body = Array(repeating: UInt8(ascii: "\n"), count: lines)
            gateway.react { _ in .send(Array("HTTP/1.1 200 OK\r\nContent-Length: \(lines)\r\n\r\n".utf8) + body) }
            let etcd = EtcdClient(try EtcdConfiguration(endpoints: gateway.url))
            seconds.append(
                await Cost.seconds {
                    do { for try await _ in etcd.watch("a") {} } catch {}
                })
        }
        let growth = seconds[1] / seconds[0] / 8
        #expect(growth < 3, "\(seconds)")
        #expect(
            Field.row(
                "daemon.8", "a watch of 400,000 empty lines", expected: "within a second of CPU",
                found: seconds[1] < 1 ? "within a second of CPU" : "\(seconds[1]) s"))
    }
}
