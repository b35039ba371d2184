// LibraryFault: what libraries say of a connection that failed, in words for people. Their own texts name files of their source and types
// of their program.

package enum LibraryFault {
    /// What each reason of BoringSSL means, for who has asked a server. Those with ALERT are what the server says.
    private static let reasons = [
        "CERTIFICATE_VERIFY_FAILED": "its certificate does not come from a CA that is trusted here, or is out of date",
        "WRONG_VERSION_NUMBER": "it does not speak TLS",
        "HTTP_REQUEST": "it does not speak TLS",
        "UNSUPPORTED_PROTOCOL": "it speaks an old TLS alone, expected 1.2 or newer",
        "TLSV1_ALERT_PROTOCOL_VERSION": "it takes another version of TLS",
        "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the CA of our certificate",
        "TLSV1_CERTIFICATE_REQUIRED": "it wants a certificate of ours, and none is set",
        "TLSV1_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours, and none is set",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it takes our certificate for expired",
        "SSLV3_ALERT_CERTIFICATE_REVOKED": "it takes our certificate for revoked",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not take our certificate",
        "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate, or wants one and none is set",
        "TLSV1_ALERT_ACCESS_DENIED": "it denies access to our certificate",
    ]

    /// - Parameter text: an error of the TLS library as it describes itself.
    package static func ofTLS(_ text: String) -> String {
        if let reason = text.firstMatch(of: /OPENSSL_internal:([A-Z0-9_]+)/)?.1 {
            return reasons[String(reason)] ?? "TLS says \(reason.lowercased().replacing("_", with: " "))"
        }
        if text.contains("ValidateHostname") || text.contains("ImpossibleToMatch") {
            return "its certificate is for other names than the one that is asked"
        }
        if text.contains("EOF") || text.contains("uncleanShutdown") {
            return "it has closed the connection before TLS began, as one does that speaks http alone"
        }
        return "TLS has failed"
    }

    /// - Parameter text: any other error as it describes itself: `Type.nameOfTheCase(values)`.
    package static func ofCase(_ text: String) -> String {
        let name = text.prefix { $0 != "(" }.split(separator: ".").last.map(String.init) ?? ""
        guard !name.isEmpty, name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber) }) else { return "it broke off" }
        return name.reduce(into: "") { words, letter in
            if letter.isUppercase, words.last?.isLowercase == true { words += " " }
            words += letter.lowercased()
        }
    }
}
