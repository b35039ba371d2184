import Crypto
import Foundation
import JWTKit
import Licensing

extension SigningKey {
    /// Signs bytes of any kind, so that a test can make tokens that no library makes.
    func sign(_ bytes: [UInt8]) throws -> Data {
        try Curve25519.Signing.PrivateKey(rawRepresentation: privateKey.rawRepresentation).signature(for: bytes)
    }
}
