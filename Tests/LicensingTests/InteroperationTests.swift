import Foundation
import Licensing
import Testing

/// Debian's own, which has Debian's packages whatever else stands in PATH.
private let python = "/usr/bin/python3"
private let hasPyJWT = (try? run([python, "-c", "import cryptography, jwt"]))??.status == 0
private let hasOpenSSL = (try? run(["openssl", "version"]))??.status == 0

/// Other programs read what fpx writes, and the other way round.
@Suite struct InteroperationTests {
    /// A key and a token of RFC 8037, appendix A: what a token is does not rest on our own signing.
    @Test func theExampleOfRFC8037() async throws {
        let folder = try Folder()
        let raw = [UInt8](Data(base64Encoded: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")!)
        let der = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00] + raw
        try folder.write(
            "-----BEGIN PUBLIC KEY-----\n\(Data(der).base64EncodedString())\n-----END PUBLIC KEY-----\n", "example.pem")
        let keys = TrustedKeys(paths: [folder.path])
        #expect(keys.ids == ["example"] && keys.trouble == [])
        let token =
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
            + "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        // It names no key, so it is not for us; its form is right.
        #expect(await refusal(Array(token.utf8), keys) == .unknownKey(found: "nothing", trusted: ["example"]))
        #expect(try LicenseToken.split(Array(token.utf8)).payload == Array("Example of Ed25519 signing".utf8))
    }

    @Test(.enabled(if: hasPyJWT, "no PyJWT: apt-get install python3-jwt python3-cryptography"))
    func pythonAndFpxReadOneAnother() async throws {
        let unit = try Unit()
        try unit.folder.write(unit.key.privatePEM, "k1.key")
        var wanted = claims(hardware: HardwareBinding(machine, binds: [.cpuModel]))
        try unit.folder.write(try await LicenseToken.sign(wanted, with: unit.key), "ours.lic")
        try unit.folder.write(
            """
            import sys, pathlib, jwt
            folder = pathlib.Path(sys.argv[1])
            public = (folder / "keys/k1.pem").read_text()
            private = (folder / "k1.key").read_text()
            ours = (folder / "ours.lic").read_text().strip()
            # The licence is of the tests' own time.
            times = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
            def decode(token):
                return jwt.decode(token, public, algorithms=["EdDSA"], issuer="tests", options=times)
            claims = decode(ours)
            header = jwt.get_unverified_header(ours)
            assert header == {"alg": "EdDSA", "kid": "k1", "typ": "JWT"}, header
            assert claims["seats"] == {"furl": 40, "fnbi": 3, "fcas": 2}, claims
            assert claims["nbf"] <= \(start) < claims["exp"], claims
            head, body, signature = ours.split(".")
            try:
                decode(".".join([head, body, ("B" if signature[0] == "A" else "A") + signature[1:]]))
                sys.exit("verified with another signature")
            except jwt.InvalidSignatureError:
                pass
            claims["sub"] = "Python"
            (folder / "license.lic").write_text(jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": "k1"}))
            """, "interoperate.py")
        let result = try #require(try run([python, unit.folder.path + "/interoperate.py", unit.folder.path]))
        #expect(result.status == 0, "\(result.output)")
        wanted.customer = "Python"
        let report = await unit.load().report
        #expect(report.status.state == .active && report.status.claims == wanted, "\(report)")
    }

    @Test(.enabled(if: hasOpenSSL, "no openssl: apt-get install openssl"))
    func opensslAndFpxReadOneAnother() async throws {
        let folder = try Folder()
        let key = try SigningKey(id: "ours")
        try folder.write(key.privatePEM, "ours.key")
        #expect(try run(["openssl", "pkey", "-in", folder.path + "/ours.key", "-pubout"])?.output == key.publicPEM)

        let theirs = folder.path + "/theirs.key"
        #expect(try run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", theirs])?.status == 0)
        #expect(try run(["openssl", "pkey", "-in", theirs, "-pubout", "-out", folder.path + "/theirs.pem"])?.status == 0)
        #expect(try KeyFile.publicPEM(theirs) == folder.read("theirs.pem"))
        let file = Array(try await LicenseToken.sign(claims(), with: SigningKey(path: theirs)).utf8)
        #expect(await refusal(file, TrustedKeys(paths: [folder.path + "/theirs.pem"])) == nil)

        // A key of another curve has as many bytes; a private key is not one to trust.
        for name in ["x25519", "x448"] {
            #expect(try run(["openssl", "genpkey", "-algorithm", name, "-out", "\(folder.path)/\(name).key"])?.status == 0)
            #expect(
                try run([
                    "openssl", "pkey", "-in", "\(folder.path)/\(name).key", "-pubout", "-out", "\(folder.path)/\(name).pem",
                ])?
                .status == 0)
            #expect(TrustedKeys(paths: ["\(folder.path)/\(name).pem"]).ids == [], "\(name)")
            #expect(throws: LicensingError.self, "\(name)") { _ = try SigningKey(path: "\(folder.path)/\(name).key") }
        }
        let trouble = TrustedKeys(paths: [theirs]).trouble
        #expect(
            trouble.map(\.description) == [
                "\(theirs): found \"-----BEGIN PRIVATE KEY-----\" with something else in it, "
                    + "expected an Ed25519 public key in PEM (BEGIN PUBLIC KEY)"
            ])
    }

    @Test func keyFilesAreChosenWithCare() throws {
        let folder = try Folder()
        let key = try SigningKey(id: "k1")
        try folder.write(key.publicPEM, "k1.pem")
        try folder.write(key.publicPEM, "not an id.pem")
        try folder.write(String(repeating: "x", count: 20_000), "large.pem")
        let keys = TrustedKeys(paths: [folder.path, folder.path + "/k1.pem", folder.path + "/none"])
        #expect(keys.ids == ["k1"])
        #expect(
            keys.trouble.map { $0.description.replacing(folder.path, with: "") } == [
                "/none: found no such file or folder, expected public keys",
                "/large.pem: found 20000 bytes, expected at most 16384",
                "/not an id.pem: found the key id \"not an id\", expected a file name of at most 64 letters, digits, `-`, `_` and `.`",
                "/k1.pem: found a second key of id k1, expected one file for each id",
            ])
    }
}
