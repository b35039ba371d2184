import AuthorityAPI
import AuthorityServer
import Foundation
import Licensing
import Testing

@Suite struct KeyTests {
    @Test func aRotationInMidLife() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let old = try #require(try await authority.store.keys().first).kid
        var held: (String?, Int?) = (nil, nil)
        func signed() async throws -> (by: String, announced: [String]) {
            let reply = try await authority.ask(unit, holding: held)
            let lease = try #require(reply.lease)
            held = (reply.claims?.licenseID, reply.claims?.epoch)
            let by = try await LicenseToken.verify(Array(lease.license.utf8), with: authority.trusted).keyID
            #expect(try await authority.store.signingKey().id == by)
            for key in lease.keys {
                #expect(try KeyFile.publicPEM(authority.folder.path + "/keys/\(key.kid).pem") == key.pem)
            }
            return (by, lease.keys.map(\.kid))
        }
        #expect(try await signed() == (old, [old]))
        let new = try await authority.store.rotateKey(overlapSeconds: 30 * day).kid
        #expect(try await signed() == (old, [old, new]))
        for kid in [old, new] {
            await #expect(throws: AuthorityError.self) { try await authority.store.retireKey(kid) }
        }
        authority.now += 30 * day - 1
        #expect(try await signed() == (old, [old, new]))
        authority.now += 1
        #expect(try await signed() == (new, [old, new]))
        _ = try await authority.store.retireKey(old)
        #expect(try await signed() == (new, [new]))
        await #expect(
            throws: AuthorityError.state(what: "key \(old)", found: "a retired key", expected: "one that is announced")
        ) {
            try await authority.store.retireKey(old)
        }
        await #expect(throws: AuthorityError.absent(what: "key", found: "none")) { try await authority.store.retireKey("none") }
        let folder = authority.folder.path + "/keys/"
        #expect(try FileManager.default.attributesOfItem(atPath: folder + new + ".key")[.posixPermissions] as? Int == 0o600)
        _ = try await authority.store.verifyLedger()
    }

    @Test func aKeyOfOnesOwn() async throws {
        let authority = try await TestAuthority()
        let own = try SigningKey(id: "own")
        try KeyFile.create(own, folder: authority.folder.path + "/keys")
        #expect(try await authority.store.rotateKey(kid: "own", overlapSeconds: 0).pem == own.publicPEM)
        #expect(try await authority.store.signingKey().id == "own")
        await #expect(throws: AuthorityError.self) { try await authority.store.rotateKey(kid: "own", overlapSeconds: 0) }
        await #expect(throws: AuthorityError.self) { try await authority.store.rotateKey(kid: "../x", overlapSeconds: 0) }
        // Two on one day have two names.
        let names = [
            try await authority.store.rotateKey(overlapSeconds: 0).kid,
            try await authority.store.rotateKey(overlapSeconds: 0).kid,
        ]
        #expect(names == ["k2026-11-21-2", "k2026-11-21-3"])
    }

    @Test func withoutAKeyNothingIsSigned() async throws {
        let folder = try Folder()
        let store = try AuthorityStore(path: folder.path + "/a.db", keysFolder: folder.path + "/keys", creates: true)
        await #expect(throws: AuthorityError.self) { _ = try await store.signingKey() }
        let first = try #require(try await store.makeFirstKey())
        #expect(try await store.makeFirstKey() == nil)
        #expect(try await store.signingKey().id == first.kid)
        // Another process of the authority, whose folder lacks the private half.
        try FileManager.default.removeItem(atPath: folder.path + "/keys/\(first.kid).key")
        let second = try AuthorityStore(path: folder.path + "/a.db", keysFolder: folder.path + "/keys")
        await #expect(
            throws: AuthorityError.licensing(
                .key(path: folder.path + "/keys/\(first.kid).key", found: "no such file", expected: "a key"))
        ) { _ = try await second.signingKey() }
    }
}
