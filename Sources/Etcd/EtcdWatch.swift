// EtcdWatch: what happens to the keys of a prefix, as it happens. A watch only shortens a wait: whoever loses it reads.

import AsyncHTTPClient
import NIOCore
import Synchronization

/// What happened to a key.
package enum EtcdEvent: Equatable, Sendable {
    case put(EtcdValue)
    case delete(key: String, revision: Int)
}

/// Events of one answer.
package struct EtcdEvents: Equatable, Sendable {
    package var revision: Int
    package var events: [EtcdEvent]
}

/// Batches of events, until it fails or its task is cancelled: then its connection is closed. One that has failed is started
/// anew.
package struct EtcdWatch: AsyncSequence, Sendable {
    package typealias Element = EtcdEvents
    package typealias Failure = EtcdError

    let client: EtcdClient
    let prefix: String
    let revision: Int
    let silenceMax: Duration

    package func makeAsyncIterator() -> Iterator { Iterator(watch: self) }

    package struct Iterator: AsyncIteratorProtocol {
        package typealias Failure = EtcdError

        private let watch: EtcdWatch
        private var stream: Stream?

        fileprivate init(watch: EtcdWatch) { self.watch = watch }

        /// - Returns: nil once the task is cancelled.
        /// - Throws: `compacted` with the revision to start from where what was asked for is gone; `timeout` after a silence
        ///   that is too long; whatever else ends a connection.
        package mutating func next() async throws(EtcdError) -> EtcdEvents? {
            do throws(EtcdError) {
                if stream == nil { stream = try await watch.client.open(watch) }
                while true {
                    guard let line = try await stream?.line() else { return nil }
                    if let events = try watch.client.events(line, endpoint: stream?.endpoint ?? ""), !events.events.isEmpty {
                        return events
                    }
                }
            } catch {
                // Nobody reads on, so the connection goes with the stream.
                stream = nil
                if Task.isCancelled || error == .cancelled { return nil }
                throw error
            }
        }
    }

    /// Lines of an answer that has no end.
    struct Stream {
        let endpoint: String
        let connections: Connections
        var body: HTTPClientResponse.Body.AsyncIterator
        let bytesMax: Int
        private var bytes: [UInt8] = []
        /// Of the bytes, how many are of lines that were given out: they are removed with the next part, not with each line.
        private var taken = 0
        /// How many have been looked at: a line of many parts is not looked through again with each.
        private var seen = 0

        init(endpoint: String, connections: Connections, response: HTTPClientResponse, bytesMax: Int) {
            self.endpoint = endpoint
            self.connections = connections
            self.bytesMax = bytesMax
            body = response.body.makeAsyncIterator()
        }

        mutating func line() async throws(EtcdError) -> [UInt8] {
            while true {
                if let end = bytes[seen...].firstIndex(of: 0x0A) {
                    let line = Array(bytes[taken..<end])
                    taken = end + 1
                    seen = taken
                    if !line.isEmpty { return line }
                    continue
                }
                bytes.removeSubrange(..<taken)
                taken = 0
                seen = bytes.count
                do {
                    guard let chunk = try await body.next() else {
                        throw EtcdError.broken(endpoint: endpoint, reason: "the watch has ended")
                    }
                    guard bytes.count + chunk.readableBytes <= bytesMax else {
                        throw EtcdError.answer(
                            endpoint: endpoint, found: "a line of more than \(bytesMax) bytes", expected: "at most that")
                    }
                    bytes += chunk.readableBytesView
                } catch {
                    throw connections.failure(error, endpoint: endpoint, waited: connections.silenceMax ?? .zero, isSent: true)
                        .error
                }
            }
        }
    }
}

extension EtcdClient {
    /// Watches the keys that begin with `prefix`.
    /// - Parameters:
    ///   - revision: the first that is told; 0: what is new.
    ///   - silenceMax: a peer that says nothing for so long is taken for gone: a member that is stopped says nothing for ever.
    package func watch(_ prefix: String, from revision: Int = 0, silenceMax: Duration = .seconds(30)) -> EtcdWatch {
        EtcdWatch(client: self, prefix: prefix, revision: revision, silenceMax: silenceMax)
    }

    /// On connections of its own, which nothing else waits behind.
    func open(_ watch: EtcdWatch) async throws(EtcdError) -> EtcdWatch.Stream {
        let index = state.withLock { $0.current }
        let endpoint = configuration.endpoints[index]
        var create = EtcdKey.range(watch.prefix, isPrefix: true) + ",\"progress_notify\":true"
        if watch.revision > 0 { create += ",\"start_revision\":\"\(watch.revision)\"" }
        let deadline = ContinuousClock.now + configuration.deadline
        let limits = Connections.Limits(head: deadline, end: deadline, bytes: configuration.answerBytesMax)
        do throws(AttemptFailure) {
            let connections: Connections
            do { connections = try Connections(configuration, silenceMax: watch.silenceMax) } catch {
                throw AttemptFailure(error: error, isSure: true, isOfEndpoint: false)
            }
            let token = try await token(endpoint: endpoint, connections: connections, limits: limits)
            let response = try await connections.open(
                "/v3/watch", of: endpoint, body: "{\"create_request\":{\(create)}}", token: token, limits: limits)
            guard response.status == .ok else {
                var body: [UInt8] = []
                if let buffer = try? await response.body.collect(upTo: 64 << 10) { body = Array(buffer.readableBytesView) }
                throw refusal(body, status: Int(response.status.code), endpoint: endpoint, token: token)
            }
            return EtcdWatch.Stream(
                endpoint: endpoint, connections: connections, response: response, bytesMax: configuration.answerBytesMax)
        } catch {
            if error.isOfEndpoint { leave(index, error.error) }
            throw error.error
        }
    }

    /// - Returns: nil for an answer that tells nothing new.
    func events(_ line: [UInt8], endpoint: String) throws(EtcdError) -> EtcdEvents? {
        var answer = WatchAnswer()
        do throws(AttemptFailure) {
            answer = try decoded(line, endpoint: endpoint) { reader throws(JSONFault) in try WatchAnswer(&reader) }
        } catch { throw error.error }
        if let refusal = answer.refusal { throw failure(refusal, endpoint: endpoint).error }
        if let error = check(answer.header) { throw error }
        guard answer.isCanceled else { return EtcdEvents(revision: answer.header.revision, events: answer.events) }
        if answer.compactRevision > 0 { throw .compacted(revision: answer.compactRevision) }
        // The reason is gRPC's text of an error: its code is a word in it.
        let isDenied = answer.cancelReason.contains("permission denied") || answer.cancelReason.contains("PermissionDenied")
        let failure = failure(EtcdRefusal(code: isDenied ? 7 : 0, message: answer.cancelReason), endpoint: endpoint)
        // The next start asks for a new one.
        if failure.needsToken { state.withLock { ($0.token, $0.isAuthenticationOff) = (nil, false) } }
        throw failure.error
    }
}

/// One line of a watch.
private struct WatchAnswer {
    var header = EtcdHeader()
    var events: [EtcdEvent] = []
    var isCanceled = false
    var cancelReason = ""
    var compactRevision = 0
    var refusal: EtcdRefusal?

    init() {}

    init(_ reader: inout JSONReader) throws(JSONFault) {
        var answer = WatchAnswer()
        var hasResult = false
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "result":
                hasResult = true
                try reader.object { name, reader throws(JSONFault) in try answer.take(name, &reader) }
            case "error": answer.refusal = try EtcdRefusal(&reader)
            default: try reader.skip()
            }
        }
        guard hasResult || answer.refusal != nil else {
            throw JSONFault(at: 0, found: "neither", expected: "a result or an error")
        }
        self = answer
    }

    private mutating func take(_ name: String, _ reader: inout JSONReader) throws(JSONFault) {
        switch name {
        case "header": header = try EtcdHeader(&reader)
        case "canceled": isCanceled = try reader.bool()
        case "cancel_reason": cancelReason = EtcdRefusal.shown(try reader.text())
        case "compact_revision": compactRevision = try reader.integer()
        case "events":
            var events: [EtcdEvent] = []
            try reader.array { reader throws(JSONFault) in
                var type = "PUT"
                var value: EtcdValue?
                try reader.object { name, reader throws(JSONFault) in
                    switch name {
                    case "type": type = try reader.text()
                    case "kv": value = try EtcdValue(&reader)
                    default: try reader.skip()
                    }
                }
                guard let value, ["PUT", "DELETE"].contains(type) else {
                    throw JSONFault(at: 0, found: "event \(EtcdRefusal.shown(type))", expected: "PUT or DELETE of a key")
                }
                events.append(type == "PUT" ? .put(value) : .delete(key: value.key, revision: value.revision))
            }
            self.events = events
        default: try reader.skip()
        }
    }
}
