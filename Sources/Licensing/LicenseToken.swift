// license.lic: the token of a licence, and a newline at its end.
//
// The same licence is what an editor or a mail program makes of that: with a byte order mark, other line ends, blanks and empty lines
// around the token, or folded. Nothing else may stand in the file.

import Basics

/// A licence whose signature was checked, and whose claims are in range. Whether it holds now and here, `check` tells.
package struct License: Equatable, Sendable {
    package let claims: LicenseClaims
    package let keyID: String
    /// The token, without what the file may have around and within it.
    package let token: [UInt8]
}

package enum LicenseToken {
    /// The largest file that is read: some 50 times a licence.
    package static let bytesMax = 64 << 10

    /// Takes a file apart and checks its form, no signature.
    /// - Throws: `empty`, `tooLarge`, `truncated`, `malformed`.
    package static func split(_ file: [UInt8]) throws(LicensingError) -> SignedToken.Parts {
        try SignedToken.split(try token(in: file))
    }

    static func token(in file: [UInt8]) throws(LicensingError) -> [UInt8] {
        if file.count > bytesMax { throw .tooLarge(path: nil, bytes: file.count, limit: bytesMax) }
        return TextFile.unfolded(file)
    }
}
