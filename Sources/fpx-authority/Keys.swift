import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

struct Keys: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes and shows keys.",
        subcommands: [New.self, Show.self, Rotate.self, Retire.self, ReplaceStolen.self, List.self])
}

extension Keys {
    struct New: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes an Ed25519 key pair.",
            discussion: """
                Writes NAME.key, the private key (PKCS 8, readable by its owner alone), and NAME.pem, the public key, into the \
                folder. NAME is the key id that tokens carry (`kid`). Give NAME.pem to the units: it belongs into their folder \
                of trusted keys. An existing key is never overwritten. Same as: openssl genpkey -algorithm ed25519, openssl \
                pkey -pubout.
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
            try KeyFile.create(try SigningKey(id: name), folder: out)
            print("private key: \(out)/\(name).key\npublic key: \(out)/\(name).pem")
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

extension Keys {
    struct ReplaceStolen: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "After the theft of a key: makes a new one that signs at once, and retires that one.",
            discussion: """
                Units that trust the stolen key alone get no lease until their operator has given them the new one; the \
                leases in hand run on. What to do there is printed.
                """)

        @OptionGroup var files: DatabaseFile
        @Argument(help: ArgumentHelp("The key that was stolen.", valueName: "kid"))
        var kid: String

        func run() async throws {
            let (key, offline) = try await files.open().replaceStolenKey(kid)
            let pem = "\(key.kid).pem"
            print(
                """
                key \(key.kid) signs from now on, \(kid) is retired: \(files.keysFolder)/\(pem)
                on each unit: copy \(pem) there, by a way that the thief does not have, then
                    fpx set replace_stolen_key \(kid) \(pem)
                on each unit without a connection: put \(pem) and a new licence in place, remove \(kid).pem, then fpx commit
                """)
            if offline > 0 {
                Authority.note("\(offline) offline licence\(offline == 1 ? "" : "s"): issue them again with `offline`")
            }
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Brings a new key into use.",
            discussion: """
                The units are told of it at once, with their next renewal; it signs when the overlap is over. An overlap \
                longer than units are ever out of touch leaves none behind. The very first key signs at once.
                """)

        @OptionGroup var files: DatabaseFile
        @Option(help: ArgumentHelp("How long the key that signs now goes on signing.", valueName: "n"))
        var overlapDays = 30
        @Option(
            help: ArgumentHelp(
                "The key id of a pair that is in the folder of keys (default: makes one, named after the day).",
                valueName: "kid"))
        var name: String?
        @Flag(help: "Makes the pair that --name names.")
        var new = false

        func validate() throws {
            if new, name == nil { throw ValidationError("--new: found no --name, expected the name of the pair to make") }
            if !(0...3660).contains(overlapDays) {
                throw ValidationError("--overlap-days: found \(overlapDays), expected 0 to 3660")
            }
        }

        func run() async throws {
            let key = try await files.open().rotateKey(
                kid: name, creates: new, overlapSeconds: overlapDays * 86_400)
            print("key \(key.kid) signs from \(Timestamp.text(key.signsFrom)): \(files.keysFolder)/\(key.kid).pem")
        }
    }

    struct Retire: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Announces a key no longer.",
            discussion: """
                For a key that another has followed. Units that trust it go on doing so: what a thief of it could sign, they \
                believe, until KID.pem is taken from their folder of trusted keys.
                """)

        @OptionGroup var files: DatabaseFile
        @Argument(help: ArgumentHelp("The key id.", valueName: "kid"))
        var kid: String

        func run() async throws {
            let key = try await files.open().retireKey(kid)
            print("key \(key.kid) is retired")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the authority's keys.")

        @OptionGroup var files: DatabaseFile
        @OptionGroup var form: ListForm

        func run() async throws {
            let store = try files.open()
            let keys = try await store.keys()
            let signing = try? await store.signingKey().id
            try form.print(keys, ["KID", "SIGNS FROM", "STATE"]) { key in
                let state =
                    key.retiredAt != nil
                    ? "retired" : key.kid == signing ? "signs" : key.signsFrom > store.now ? "next" : "announced"
                return [key.kid, Timestamp.text(key.signsFrom), state]
            }
        }
    }
}
