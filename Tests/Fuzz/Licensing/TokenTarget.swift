// license.lic before its signature is checked: the token's form.

import Basics
import Foundation

/// 64 bytes of zeros.
private let signature = [UInt8](repeating: UInt8(ascii: "A"), count: 86)

private func base64URL(_ bytes: [UInt8]) -> [UInt8] {
    Data(bytes).base64EncodedData().filter { $0 != UInt8(ascii: "=") }.map { byte in
        byte == UInt8(ascii: "+") ? UInt8(ascii: "-") : byte == UInt8(ascii: "/") ? UInt8(ascii: "_") : byte
    }
}

/// A token that is taken has the one text that its parts have.
private func checkFile(_ file: [UInt8]) {
    do throws(LicensingError) {
        let parts = try LicenseToken.split(file)
        let text = file.starts(with: [0xEF, 0xBB, 0xBF]) ? file.dropFirst(3) : file[...]
        expect(parts.token == text.filter { ![0x20, 0x09, 0x0D, 0x0A].contains($0) }, "the token is not the file")
        let texts = parts.token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map(Array.init)
        expect(texts.count == 3 && texts[1] == base64URL(parts.payload), "another text is the same token")
        for text in texts {
            guard let bytes = Base64URL.decode(text[...]) else { return expect(false, "a part that cannot be read was taken") }
            expect(base64URL(bytes) == text, "another text is the same part")
        }
    } catch {
        expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
}

/// Not too deep, and in UTF-8 as far as brackets go.
private func isShallow(_ bytes: [UInt8]) -> Bool { (try? JSONText.check(bytes, nestingMax: JSONValue.nestingMax)) != nil }

/// The input up to its first newline as header, the rest as payload: taken exactly where the header is a JSON object, and
/// neither is too deep.
private func checkParts(_ bytes: [UInt8]) {
    let header = Array(bytes.prefix { $0 != 0x0A })
    let payload = Array(bytes.dropFirst(header.count + 1))
    let token = Array([base64URL(header), base64URL(payload), signature].joined(separator: [UInt8(ascii: ".")]))
    let isReadable = header.count <= 1024 && isShallow(header) && isShallow(payload)
    let members = isReadable ? try? JSONDecoder().decode([String: JSONValue].self, from: Data(header)) : nil
    let parts = try? LicenseToken.split(token + [0x0A])
    // Headers as genuine ones are: `{"` and a letter, which is what the first three characters of a token tell.
    let isCanonical = header.starts(with: Array("{\"".utf8)) && header.count > 2 && (0x40...0x7F).contains(header[2])
    expect((parts != nil) == (isCanonical && members != nil), "found a header that was \(parts == nil ? "refused" : "taken")")
    expect(parts == nil || parts?.payload == payload && parts?.header == members, "found \(String(describing: parts))")
    // A part may end with bits that no byte uses: here they are set.
    for end in token.indices where token[end...].dropFirst().first ?? UInt8(ascii: ".") == UInt8(ascii: ".") {
        var file = token
        file[end] = UInt8(ascii: "B")
        checkFile(file)
    }
}

func fuzzToken(_ bytes: [UInt8]) {
    checkFile(bytes)
    checkParts(bytes)
}
