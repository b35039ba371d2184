// For people: how each endpoint does.

import Foundation
import Synchronization

/// An endpoint, in words.
package struct EtcdEndpoint: Equatable, Sendable {
    package var url: String
    package var isReachable: Bool
    /// Calls go there first.
    package var isCurrent: Bool
    /// One line.
    package var state: String
}

extension EtcdClient {
    /// What calls have found so far; asks nobody.
    package var endpoints: [EtcdEndpoint] {
        state.withLock { state in
            var notes = ""
            if state.isAuthenticationOff {
                notes += "; authentication is off there, so user \(configuration.user ?? "") is not needed"
            }
            if let problem = state.filesProblem { notes += "; what was read before is still used: \(problem)" }
            return configuration.endpoints.enumerated().map { index, url in
                var text = "not asked yet"
                var isReachable = false
                switch state.found[index] {
                case .success:
                    text = "answers" + notes
                    isReachable = true
                case .failure(let error): text = "\(error)"
                case nil: break
                }
                return EtcdEndpoint(url: url, isReachable: isReachable, isCurrent: index == state.current, state: text)
            }
        }
    }

    /// Asks each endpoint now. Takes at most `deadline`.
    package func status() async -> [EtcdEndpoint] {
        let known = state.withLock { $0 }
        return await withTaskGroup(of: (Int, EtcdEndpoint).self) { group in
            for (index, url) in configuration.endpoints.enumerated() {
                group.addTask { [self] in
                    var endpoint = EtcdEndpoint(url: url, isReachable: false, isCurrent: index == known.current, state: "")
                    do throws(AttemptFailure) {
                        endpoint.state = try await status(of: url, clusterID: known.clusterID)
                        endpoint.isReachable = true
                    } catch {
                        endpoint.state = "\(error.error)"
                    }
                    return (index, endpoint)
                }
            }
            var endpoints: [(Int, EtcdEndpoint)] = []
            for await endpoint in group { endpoints.append(endpoint) }
            return endpoints.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private func status(of endpoint: String, clusterID: UInt64?) async throws(AttemptFailure) -> String {
        let body = try await answer(
            "/v3/maintenance/status", "{}", endpoint: endpoint, deadline: .now + configuration.deadline, mayAskAnother: false)
        var version = ""
        var leader: UInt64 = 0
        var size = 0
        var errors: [String] = []
        let header = try decoded(body, endpoint: endpoint) { reader throws(JSONFault) in
            var header = EtcdHeader()
            try reader.object { name, reader throws(JSONFault) in
                switch name {
                case "header": header = try EtcdHeader(&reader)
                case "version": version = try reader.text()
                case "leader": leader = try reader.integer(UInt64.self)
                case "dbSize": size = try reader.integer()
                case "errors": try reader.array { reader throws(JSONFault) in errors.append(try reader.text()) }
                default: try reader.skip()
                }
            }
            return header
        }
        var words = [leader == 0 ? "no leader" : leader == header.memberID ? "leader" : "follower"]
        words.append("etcd " + EtcdRefusal.shown(version))
        words.append("\(size) bytes")
        if let clusterID, clusterID != header.clusterID {
            words.append("\(EtcdError.otherCluster(found: header.clusterID, expected: clusterID))")
        }
        words += errors.map { EtcdRefusal.shown($0).trimmingCharacters(in: .whitespaces) }
        return words.joined(separator: ", ")
    }
}
