// What several commands take, and how they print lists.

import ArgumentParser
import AuthorityServer
import ControlAPI
import Foundation

struct DatabaseFile: ParsableArguments {
    @Option(help: ArgumentHelp("The authority's database.", valueName: "file"))
    var database = "/var/lib/fpx-authority/authority.db"

    @Option(help: ArgumentHelp("The folder of KID.key and KID.pem (default: keys, beside the database).", valueName: "folder"))
    var keys: String?

    var keysFolder: String {
        keys ?? ((database as NSString).deletingLastPathComponent as NSString).appendingPathComponent("keys")
    }

    func open(creates: Bool = false, reissues: Int = 3) throws(AuthorityError) -> AuthorityStore {
        try AuthorityStore(path: database, keysFolder: keysFolder, reissues: reissues, creates: creates)
    }
}

struct ListForm: ParsableArguments {
    @Flag(help: "Prints JSON.")
    var json = false

    /// One line for each, columns as wide as they must be.
    func print<Element: Encodable>(_ list: [Element], _ titles: [String], _ cells: (Element) -> [String]) throws {
        if json { return try Self.printJSON(list) }
        let rows = [titles] + list.map(cells)
        let widths = titles.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let line = zip(row, widths).map { $0.padding(toLength: max($1, $0.count), withPad: " ", startingAt: 0) }
            Swift.print(line.joined(separator: "  ").trimmingSuffix(while: { $0 == " " }))
        }
    }

    static func printJSON(_ value: some Encodable) throws {
        Swift.print(String(decoding: try ControlJSON.encoder().encode(value), as: UTF8.self))
    }
}

extension String {
    fileprivate func trimmingSuffix(while matches: (Character) -> Bool) -> Substring {
        var rest = self[...]
        while let last = rest.last, matches(last) { rest.removeLast() }
        return rest
    }
}
