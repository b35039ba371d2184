// What is sold: three types of seats, each with a pool and a cap of its own.

/// A licence type; each gates its own pool.
package enum LicenseType: String, CaseIterable, Sendable {
    /// Proxy and UTM inspection: the one that gates sessions.
    case furl
    /// Browser isolation.
    case fnbi
    /// Content analysis.
    case fcas

    /// The engine's pool of this type.
    package var poolIndex: Int {
        switch self {
        case .furl: 0
        case .fnbi: 1
        case .fcas: 2
        }
    }
}

/// One value for each licence type.
package struct PerType<Value> {
    package var furl: Value
    package var fnbi: Value
    package var fcas: Value

    package init(furl: Value, fnbi: Value, fcas: Value) {
        self.furl = furl
        self.fnbi = fnbi
        self.fcas = fcas
    }

    package subscript(type: LicenseType) -> Value {
        switch type {
        case .furl: furl
        case .fnbi: fnbi
        case .fcas: fcas
        }
    }
}

extension PerType: Equatable where Value: Equatable {}
extension PerType: Sendable where Value: Sendable {}
