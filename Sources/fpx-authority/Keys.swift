import ArgumentParser
import Foundation
import Licensing

struct Keys: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes and shows keys.", subcommands: [New.self, Show.self])
}

extension Keys {
    struct New: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes an Ed25519 key pair.",
            discussion: """
                Writes NAME.key, the private key (PKCS 8, readable by its owner alone), and NAME.pem, the public key, into the folder. \
                NAME is the key id that tokens carry (`kid`). Give NAME.pem to the units: it belongs into their folder of trusted \
                keys. An existing key is never overwritten. Same as: openssl genpkey -algorithm ed25519, openssl pkey -pubout.
                """)

        @Option(help: ArgumentHelp("The key id: at most 64 letters, digits, `-`, `_` and `.`.", valueName: "kid"))
        var name: String

        @Option(help: ArgumentHelp("The folder; made where it is missing.", valueName: "folder"))
        var out: String

        func validate() throws {
            if !KeyFile.isID(name) {
                throw ValidationError(
                    "--name: found '\(name)', expected 1 to 64 letters, digits, '-', '_' and '.', no '.' first")
            }
        }

        func run() throws {
            let key = try SigningKey(id: name)
            let paths = (private: "\(out)/\(name).key", public: "\(out)/\(name).pem")
            try StoredFile.makeFolder(out)
            // Looked at first, so that a public key that is there already leaves no private key without its half.
            if access(paths.public, F_OK) == 0 { throw LicensingError.exists(path: paths.public) }
            try StoredFile.create(Array(key.privatePEM.utf8), at: paths.private, mode: 0o600)
            try StoredFile.create(Array(key.publicPEM.utf8), at: paths.public, mode: 0o644)
            print("private key: \(paths.private)\npublic key: \(paths.public)")
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows the id and the public half of a key.",
            discussion: "Takes either half; never shows the private one.")

        @Argument(help: ArgumentHelp("NAME.key or NAME.pem.", valueName: "file"))
        var file: String

        func run() throws {
            let publicPEM = try KeyFile.publicPEM(file)
            print("kid: \(KeyFile.id(of: file))\n\(publicPEM)", terminator: "")
        }
    }
}
