// Cluster: etcd's members, each on a host of its own, on the disk, and what an operator and a vandal can do to it.

import Foundation

final class Cluster {
    final class Member {
        let name: String
        let place: Place
        let address: String
        fileprivate(set) var process: Child?
        var data: String
        fileprivate init(name: String, place: Place, address: String, data: String) {
            (self.name, self.place, self.address, self.data) = (name, place, address, data)
        }
    }

    let members: [Member]
    private let folder: String
    private let quota: Int
    var endpoints: [String] { members.map { "http://\($0.address):2379" } }
    var quorum: Int { members.count / 2 + 1 }

    /// - Parameter quota: bytes of etcd's database.
    init(count: Int, folder: String, quota: Int, network: inout Network) throws(ChaosError) {
        self.folder = folder
        self.quota = quota
        var members: [Member] = []
        for index in 1...count {
            members.append(
                Member(
                    name: "e\(index)", place: try network.addHost("e\(index)", number: 100 + index),
                    address: Network.address(100 + index), data: "\(folder)/e\(index)"))
        }
        self.members = members
        for member in members { try start(member) }
    }

    /// Starts it if it does not run.
    func start(_ member: Member) throws(ChaosError) {
        if let process = member.process, !process.hasEnded() { return }
        let (client, peer) = ("http://\(member.address):2379", "http://\(member.address):2380")
        member.process = try Child(
            [
                "etcd", "--name", member.name, "--data-dir", member.data, "--listen-client-urls",
                client + ",http://127.0.0.1:2379",
                "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", members.map { "\($0.name)=http://\($0.address):2380" }.joined(separator: ","),
                "--heartbeat-interval", "50", "--election-timeout", "500", "--quota-backend-bytes", String(quota),
                "--logger", "zap", "--log-level", "error",
            ], in: member.place, output: "\(folder)/\(member.name).log")
    }

    /// As if its disk had been changed for a new one.
    func forget(_ member: Member) throws(ChaosError) {
        member.process?.end()
        guard access(member.data, F_OK) == 0 else { return }
        do { try FileManager.default.removeItem(atPath: member.data) } catch {
            throw .system(call: "remove", path: member.data, code: errno)
        }
    }

    func end() { for member in members { member.process?.end() } }

    /// `etcdctl`, on the member's own host, so that no cut cable is in the way.
    @discardableResult
    func control(_ member: Member, _ words: String...) -> (status: Int32, output: String) {
        (try? run(
            ["etcdctl", "--endpoints", "http://127.0.0.1:2379", "--command-timeout", "1500ms"] + words, in: member.place,
            within: 4))
            ?? (-1, "not started")
    }

    var isHealthy: Bool { members.allSatisfy { control($0, "put", "chaos/health", "1").status == 0 } }

    /// The leader; nil while there is none.
    var leader: Member? {
        members.first { member in
            guard let process = member.process, !process.hasEnded() else { return false }
            // ENDPOINT, ID, VERSION, SIZE, IS LEADER, ...
            return control(member, "endpoint", "status").output.split(separator: ",").dropFirst(4).first?.contains("true")
                ?? false
        }
    }

    /// Some member that answers.
    var speaker: Member? { members.first { control($0, "get", "chaos/health").status == 0 } }

    /// Throws away all history: watches and reads of the past fail.
    func compact() {
        guard let member = speaker else { return }
        let text = control(member, "get", "chaos/health", "-w", "json").output
        guard let revision = text.firstMatch(of: /"revision":(\d+)/).map({ String($0.1) }) else { return }
        control(member, "compact", revision)
        for member in members { control(member, "defrag") }
    }

    /// Fills the database until etcd takes no more writes: a megabyte at a time, which no command line holds.
    func fill() throws(ChaosError) {
        guard let member = speaker else { return }
        let body = folder + "/fill.json"
        let key = Data("chaos/fill".utf8).base64EncodedString()
        let text = #"{"key":"\#(key)","value":"\#(Data(count: 1 << 20).base64EncodedString())"}"#
        do { try text.write(toFile: body, atomically: true, encoding: .utf8) } catch {
            throw .notReady(what: body, log: "\(error)")
        }
        for _ in 0...quota >> 20 {
            let words = ["curl", "-s", "-m", "2", "--data-binary", "@" + body, "http://127.0.0.1:2379/v3/kv/put"]
            if try !run(words, in: member.place).output.contains("revision") { return }
        }
    }

    func disarm() {
        guard let member = speaker else { return }
        control(member, "del", "--prefix", "chaos/fill")
        compact()
        control(member, "alarm", "disarm")
    }

    /// All keys below a prefix and their values.
    func rows(_ prefix: String) -> [(key: String, value: String)] {
        guard let member = speaker else { return [] }
        let lines = control(member, "get", "--prefix", prefix).output.split(separator: "\n", omittingEmptySubsequences: false)
        return stride(from: 0, to: lines.count - 1, by: 2).map { (String(lines[$0]), String(lines[$0 + 1])) }
    }

    func put(_ key: String, _ value: String) { if let member = speaker { control(member, "put", "--", key, value) } }
    func delete(_ prefix: String) { if let member = speaker { control(member, "del", "--prefix", prefix) } }
}
