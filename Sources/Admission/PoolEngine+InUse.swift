// What this process has in use, exact while its other threads work too: for builds that check releases.

import CAdmission

/// Sessions that one process has in use.
package struct InUse: Equatable, Sendable {
    package let licensed: Int
    package let bypassed: Int
}

extension PoolEngine {
    /// What this process has in use at one moment: nothing changed between two looks at it. Nil: something changed each time.
    package func inUseHere(attempts: Int = 1000) -> InUse? {
        var before = look()
        for _ in 0..<attempts {
            let after = look()
            if after == before { return after.inUse }
            before = after
        }
        return nil
    }

    /// What stands in a process' records, and a mark by which any change of them shows.
    private struct Look: Equatable {
        var licensed = 0
        var bypassed: UInt64 = 0
        var mark: UInt64 = 0
        var inUse: InUse { InUse(licensed: licensed, bypassed: PoolEngine.gauge(bypassed)) }

        mutating func see(_ word: UInt64) { mark = (mark ^ word) &* 0x9E37_79B9_7F4A_7C15 }
    }

    private func look() -> Look {
        var look = Look()
        look.see(begin().high)
        look.licensed = balance(slot).account.credit
        forEachWriter(of: slot) { writer in
            let account = writer.account
            let (releases, admissions) = (writer.released.load(), writer.admitted.load())
            let bypassed = writer.bypassed.load()
            for word in [releases, admissions, bypassed] { look.see(word) }
            look.licensed += account.credit
            if account.phase != Phase.tight { look.licensed -= max(0, account.spare(admitted: admissions, released: releases)) }
            look.bypassed &+= bypassed
        }
        return look
    }
}
