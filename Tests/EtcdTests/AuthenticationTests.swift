import Etcd
import Foundation
import Testing
import TestSupport

extension WithEtcd {
    struct AuthenticationTests {
        private func client(_ server: EtcdServer, user: String = "unit", passwordFile: String) throws -> EtcdClient {
            var configuration = try EtcdConfiguration(endpoints: server.list, user: user, passwordFile: passwordFile)
            // bcrypt takes its time, on a machine that does other things too.
            configuration.deadline = .seconds(5)
            return EtcdClient(configuration)
        }

        @Test func lifeOfAPassword() async throws {
            let server = try await EtcdServer.start(arguments: ["--auth-token-ttl", "1", "--bcrypt-cost", "4"])
            let folder = try Folder()
            let file = try folder.write("password", "first\n")
            let etcd = try client(server, passwordFile: file)
            // Before authentication is turned on the user is not needed; afterwards it is found by itself.
            _ = try await etcd.put("pool/a", [0])
            #expect(etcd.endpoints[0].state.hasPrefix("answers; authentication is off there"), "\(etcd.endpoints)")
            try server.enableAuthentication(root: "root", user: "unit", password: "first", prefix: "pool/")
            _ = try await etcd.put("pool/a", [1])
            #expect(etcd.endpoints[0].state == "answers")
            #expect(await failure { () throws(EtcdError) in try await etcd.put("else", [1]) }?.name == "denied")
            var denied = etcd.watch("else").makeAsyncIterator()
            #expect(await failure { () throws(EtcdError) in try await denied.next() }?.name == "denied")

            // The token runs out; a transaction is sent again, for the first was surely not taken.
            try await Task.sleep(for: .milliseconds(2500))
            let answer = try await etcd.transaction(EtcdTransaction(then: [.put(key: "pool/a", value: [2])]))
            #expect(answer.succeeded)
            // So does a watch that is started anew.
            try await Task.sleep(for: .milliseconds(2500))
            let isWatching = await poll {
                var iterator = etcd.watch("pool/", from: answer.header.revision).makeAsyncIterator()
                return (try? await iterator.next())?.events.count == 1
            }
            #expect(isWatching)

            // A changed password is taken from the file when it is needed.
            try server.control(["user", "passwd", "unit", "--interactive=false"], user: "root:root", input: "second\n")
            let error = await failure { () throws(EtcdError) in try await etcd.put("pool/a", [3]) }
            #expect(error?.name == "notAuthenticated" && error?.isOutcomeUnknown == false, "\(String(describing: error))")
            _ = try folder.write("password", "second")
            _ = try await etcd.put("pool/a", [3])

            // A role that is taken away, and given back.
            try server.control(["user", "revoke-role", "unit", "unit"], user: "root:root")
            #expect(await failure { () throws(EtcdError) in try await etcd.put("pool/a", [4]) }?.name == "denied")
            try server.control(["user", "grant-role", "unit", "unit"], user: "root:root")
            _ = try await etcd.put("pool/a", [4])

            // Nobody: named as that.
            let nobody = try Etcd.EtcdClient(EtcdConfiguration(endpoints: server.list))
            let unnamed = await failure { () throws(EtcdError) in try await nobody.put("pool/a", [5]) }
            #expect(
                unnamed?.description.hasPrefix("found no user for an etcd that wants one") == true,
                "\(String(describing: unnamed))")
            let wrong = try client(server, passwordFile: try folder.write("wrong", "wrong"))
            #expect(await failure { () throws(EtcdError) in try await wrong.put("pool/a", [5]) }?.name == "notAuthenticated")
            #expect(try await etcd.get("pool/a")?.value == [4])
        }

        @Test func passwordFilesThatAreNone() async throws {
            let folder = try Folder()
            for (name, text) in [("empty", ""), ("two", "a\nb\n"), ("long", String(repeating: "a", count: 2000))] {
                let file = try folder.write(name, text)
                let configuration = try EtcdConfiguration(endpoints: "http://127.0.0.1:1", user: "u", passwordFile: file)
                let error = await failure { () throws(EtcdError) in try configuration.checkFiles() }
                #expect(
                    error?.description.hasPrefix("sharing-password-file: found") == true,
                    "\(name): \(String(describing: error))")
                if !text.isEmpty { #expect(error?.description.contains(text.prefix(3) + "\n") == false) }
            }
            for file in ["/nowhere/password", folder.path, "/dev/zero"] {
                let etcd = EtcdClient(try EtcdConfiguration(endpoints: "http://127.0.0.1:1", user: "u", passwordFile: file))
                #expect(await failure { () throws(EtcdError) in try await etcd.get("a") }?.name == "setting")
            }
        }
    }
}
