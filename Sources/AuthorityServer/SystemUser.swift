// SystemUser: the person behind a command, as far as the operating system knows.

import Foundation

enum SystemUser {
    /// `user alice`; `user alice as root` for who logged in as alice and became root. A user without a name is a number.
    static let current: String = {
        let own = geteuid()
        guard let login = loginID, login != own else { return "user " + name(of: own) }
        return "user \(name(of: login)) as \(name(of: own))"
    }()

    /// Who logged in, whatever user they have become since: the kernel passes it on (man 8 pam_loginuid). nil: nobody did.
    private static var loginID: uid_t? {
        guard let text = try? String(contentsOfFile: "/proc/self/loginuid", encoding: .utf8),
            let id = uid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)), id != uid_t.max
        else { return nil }
        return id
    }

    private static func name(of id: uid_t) -> String {
        var record = passwd()
        var found: UnsafeMutablePointer<passwd>?
        var text = [CChar](repeating: 0, count: 16384)
        guard getpwuid_r(id, &record, &text, text.count, &found) == 0, found != nil, let name = record.pw_name else {
            return String(id)
        }
        return String(cString: name)
    }
}
