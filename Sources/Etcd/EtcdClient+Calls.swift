// How a call is made: which endpoint, with which token, how often, and what is said of it in the end.

import Foundation
import Synchronization

extension EtcdClient {
    private static let pause: Duration = .milliseconds(50)

    /// One call over all endpoints that it tries.
    ///
    /// - Parameter isQuestion: it changes nothing, so it may be asked again.
    func call<T>(
        _ path: String, _ body: String, isQuestion: Bool, _ decode: (inout JSONReader) throws(JSONFault) -> (EtcdHeader, T)
    ) async throws(EtcdError) -> T {
        let deadline = ContinuousClock.now + configuration.deadline
        let attemptsMax = max(configuration.attemptsMax, configuration.endpoints.count)
        var hasNewToken = false
        var attempt = 1
        while true {
            let index = state.withLock { $0.current }
            let endpoint = configuration.endpoints[index]
            do throws(AttemptFailure) {
                let body = try await answer(
                    path, body, endpoint: endpoint, deadline: deadline,
                    mayAskAnother: isQuestion && attempt < attemptsMax && configuration.endpoints.count > 1)
                let (header, value) = try decoded(body, endpoint: endpoint, decode)
                if let other = check(header) { throw AttemptFailure(error: other, isSure: false, isOfEndpoint: false) }
                state.withLock { $0.found[index] = .success(()) }
                return value
            } catch {
                if error.needsToken, configuration.user != nil, !hasNewToken {
                    hasNewToken = true
                    continue
                }
                let isKnown = isQuestion || error.isSure
                if error.isOfEndpoint { leave(index, error.error) }
                guard error.isOfEndpoint, isKnown, attempt < attemptsMax, ContinuousClock.now < deadline else {
                    if isKnown || error.error.isOutcomeUnknown { throw error.error }
                    throw .outcomeUnknown(endpoint: endpoint, reason: "\(error.error)")
                }
                // All have been tried: what ails them may pass.
                if attempt % configuration.endpoints.count == 0 { await pause(before: deadline, attempt: attempt) }
                attempt += 1
            }
        }
    }

    /// Left to chance, so that units which lost etcd at one time do not come back at one time.
    private func pause(before deadline: ContinuousClock.Instant, attempt: Int) async {
        let longest = min(Self.pause * (1 << min(attempt, 4)), deadline - ContinuousClock.now)
        try? await Task.sleep(for: .nanoseconds(Int64.random(in: 0...max(0, longest.nanoseconds))))
    }

    func leave(_ index: Int, _ error: EtcdError) {
        state.withLock { state in
            state.found[index] = .failure(error)
            // Another call may have left it before.
            if state.current == index { state.current = (index + 1) % configuration.endpoints.count }
        }
    }

    func decoded<T>(
        _ body: [UInt8], endpoint: String, _ decode: (inout JSONReader) throws(JSONFault) -> T
    ) throws(AttemptFailure) -> T {
        do throws(JSONFault) { return try JSONReader.read(body, decode) } catch {
            let found = body.isEmpty ? "an empty body" : "\(error.found) at byte \(error.at) of \(body.count)"
            throw AttemptFailure(error: .answer(endpoint: endpoint, found: found, expected: error.expected), isSure: false)
        }
    }

    /// Whether it is the cluster that has answered before.
    func check(_ header: EtcdHeader) -> EtcdError? {
        state.withLock { state in
            guard let expected = state.clusterID else {
                state.clusterID = header.clusterID
                return nil
            }
            return header.clusterID == expected ? nil : .otherCluster(found: header.clusterID, expected: expected)
        }
    }

    /// After `otherCluster`: that one is the right one from now on.
    package func accept(cluster: UInt64) { state.withLock { $0.clusterID = cluster } }
}

// MARK: - One attempt

extension EtcdClient {
    /// The body of an answer that is none of etcd's refusals.
    func answer(
        _ path: String, _ body: String, endpoint: String, deadline: ContinuousClock.Instant, mayAskAnother: Bool
    ) async throws(AttemptFailure) -> [UInt8] {
        let connections = try connections()
        let now = ContinuousClock.now
        // A question leaves time to ask another endpoint, as long as this one has not begun to answer.
        let head = mayAskAnother ? now + (deadline - now) / 2 : deadline
        let limits = Connections.Limits(head: head, end: deadline, bytes: configuration.answerBytesMax)
        let token = try await token(endpoint: endpoint, connections: connections, limits: limits)
        let (status, answer) = try await connections.post(path, of: endpoint, body: body, token: token, limits: limits)
        guard status != 200 else { return answer }
        throw refusal(answer, status: status, endpoint: endpoint, token: token)
    }

    /// What it means for the token that the answer was given to.
    func refusal(_ body: [UInt8], status: Int, endpoint: String, token: String?) -> AttemptFailure {
        let refusal = try? JSONReader.read(body) { reader throws(JSONFault) in try EtcdRefusal(&reader) }
        guard let refusal, refusal.code != 0 else {
            let text = EtcdRefusal.shown(String(decoding: body.prefix(100), as: UTF8.self)).trimmingCharacters(in: .whitespaces)
            if text.contains("CommonName") {
                return AttemptFailure(
                    error: .certificate(
                        endpoint: endpoint,
                        reason: "with authentication on, etcd's gateway takes no client certificate with a CN"),
                    isSure: true, isOfEndpoint: false)
            }
            // It is not etcd that answers. Who refuses like this has not passed anything on.
            let isSure = [400, 401, 403, 404, 405, 413, 429].contains(status)
            return AttemptFailure(
                error: .answer(endpoint: endpoint, found: "status \(status) (\(text))", expected: "one of etcd's"),
                isSure: isSure)
        }
        let failure = failure(refusal, endpoint: endpoint)
        if failure.needsToken {
            state.withLock { state in
                // Another call may have a new one already.
                if state.token == token { state.token = nil }
                state.isAuthenticationOff = false
            }
        }
        return failure
    }

    /// What a refusal means. The codes are gRPC's.
    func failure(_ refusal: EtcdRefusal, endpoint: String) -> AttemptFailure {
        let message = refusal.message
        let user = configuration.user ?? ""
        func sure(_ error: EtcdError, needsToken: Bool = false) -> AttemptFailure {
            AttemptFailure(error: error, isSure: true, isOfEndpoint: false, needsToken: needsToken)
        }
        // The last two come as code 3: a user where none was needed before, or rights that have changed.
        let tokenMessages = ["invalid auth token", "user name is empty", "revision of auth store is old"]
        if refusal.code == 16 || tokenMessages.contains(where: message.contains) {
            return sure(.notAuthenticated(user: user, reason: message), needsToken: true)
        }
        switch refusal.code {
        case 7: return sure(.denied(user: user, reason: message))
        case 8 where message.contains("database space exceeded"): return sure(.noSpace(endpoint: endpoint))
        case 8: return AttemptFailure(error: .unavailable(endpoint: endpoint, reason: message), isSure: true)
        case 5 where message.contains("lease"): return sure(.leaseNotFound)
        case 11 where message.contains("compacted"): return sure(.compacted(revision: 0))
        case 3 where message.contains("authentication failed"): return sure(.notAuthenticated(user: user, reason: message))
        case 3, 5, 6, 9, 11, 12: return sure(.refused(endpoint: endpoint, code: refusal.code, message: message))
        default:
            // A member without a leader refuses before it does anything; others, "request timed out" above all, may have done
            // it.
            let isSure = refusal.code == 14 && (message.contains("no leader") || message.contains("learner"))
            return AttemptFailure(error: .unavailable(endpoint: endpoint, reason: message), isSure: isSure)
        }
    }

    /// Connections with the certificates that lie on disk now.
    func connections() throws(AttemptFailure) -> Connections {
        let stamps = configuration.stamps
        let made = state.withLock { state -> Result<Connections, EtcdError> in
            if let connections = state.connections, state.stamps == stamps { return .success(connections) }
            do throws(EtcdError) {
                let connections = try Connections(configuration)
                (state.connections, state.stamps, state.filesProblem) = (connections, stamps, nil)
                return .success(connections)
            } catch {
                state.filesProblem = error
                // Half of a renewal, or a bad one: what we have may do for long.
                if let connections = state.connections { return .success(connections) }
                return .failure(error)
            }
        }
        do { return try made.get() } catch { throw AttemptFailure(error: error, isSure: true, isOfEndpoint: false) }
    }

    /// What says who we are; nil where etcd does not ask.
    func token(
        endpoint: String, connections: Connections, limits: Connections.Limits
    ) async throws(AttemptFailure) -> String? {
        guard let user = configuration.user else { return nil }
        let (known, isOff) = state.withLock { ($0.token, $0.isAuthenticationOff) }
        if known != nil || isOff { return known }
        let password: String
        do { password = try configuration.password() } catch {
            throw AttemptFailure(error: error, isSure: true, isOfEndpoint: false)
        }
        do throws(AttemptFailure) {
            let (status, body) = try await connections.post(
                "/v3/auth/authenticate", of: endpoint, body: try Self.credentials(user, password), token: nil, limits: limits)
            guard status == 200 else { throw refusal(body, status: status, endpoint: endpoint, token: nil) }
            return try keep(body, endpoint: endpoint)
        } catch {
            var error = error
            if case .refused(_, 9, let message) = error.error, message.contains("not enabled") {
                state.withLock { $0.isAuthenticationOff = true }
                return nil
            }
            // Nothing but the question who we are has been sent, and it was answered with the password of now.
            error.isSure = true
            error.needsToken = false
            throw error
        }
    }

    private func keep(_ body: [UInt8], endpoint: String) throws(AttemptFailure) -> String {
        let token = try? JSONReader.read(body) { reader throws(JSONFault) -> String in
            var token = ""
            try reader.object { name, reader throws(JSONFault) in
                if name == "token" { token = try reader.text() } else { try reader.skip() }
            }
            return token
        }
        // It becomes a header's value.
        guard let token, !token.isEmpty, token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw AttemptFailure(
                error: .answer(endpoint: endpoint, found: "no token in \(body.count) bytes", expected: "one of visible ASCII"),
                isSure: true)
        }
        state.withLock { $0.token = token }
        return token
    }

    private static func credentials(_ user: String, _ password: String) throws(AttemptFailure) -> String {
        guard let body = try? JSONEncoder().encode(["name": user, "password": password]) else {
            throw AttemptFailure(
                error: .setting(name: "sharing-user", found: "a name that JSON cannot say", expected: "UTF-8"), isSure: true,
                isOfEndpoint: false)
        }
        return String(decoding: body, as: UTF8.self)
    }
}
