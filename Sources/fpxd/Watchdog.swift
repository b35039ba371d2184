// Watchdog: tells the service manager that fpxd lives, for as long as what it serves does: rounds come round, and the control
// socket answers. A thread of its own asks, so that whoever hangs holds up nobody else.

import Basics
import Foundation
import Logging

extension Rounds {
    /// Nil: the service manager does not want to hear.
    ///
    /// - Parameters:
    ///   - pulses: of the work that must come round.
    ///   - socket: the control socket.
    static func watchdog(_ manager: ServiceManager, pulses: [Pulse], socket: String, logger: Logger) -> Rounds? {
        guard let patience = manager.watchdogPatience else { return nil }
        // Several times within the patience: one answer that is late is no reason to be killed.
        return Rounds(name: "watchdog", interval: patience / 4) {
            var told = ""
            return {
                var trouble = pulses.filter { !$0.isBeating(within: patience) }.map { "\($0.name) has not come round" }
                if !ControlProbe.answers(on: socket, within: patience / 2) {
                    trouble.append("the control socket does not answer")
                }
                if trouble.isEmpty { manager.notify("WATCHDOG=1") }
                let text = trouble.joined(separator: ", ")
                if text != told, !text.isEmpty { logger.error("The service manager is not told that fpxd lives: \(text)") }
                told = text
            }
        }
    }
}

/// A question to our own control socket, as anybody would ask it.
enum ControlProbe {
    private static let question = Array("GET /v1/status HTTP/1.1\r\nHost: fpxd\r\nConnection: close\r\n\r\n".utf8)
    private static let answer = Array("HTTP/1.1 200 ".utf8)

    static func answers(on path: String, within limit: Duration) -> Bool {
        let deadline = ContinuousClock.now + limit
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        if descriptor < 0 { return false }
        defer { close(descriptor) }
        // A full queue of connections is an error here, and no wait.
        guard let address = UnixAddress(path), address.call({ connect(descriptor, $0, $1) }) == 0,
            send(descriptor, question, question.count, Int32(MSG_NOSIGNAL)) == question.count
        else { return false }
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64)
        while received.count < answer.count {
            guard Descriptor.isReady(descriptor, for: POLLIN, before: deadline) else { return false }
            let count = recv(descriptor, &chunk, chunk.count, 0)
            guard count > 0 else { return false }
            received += chunk[..<count]
        }
        return received.starts(with: answer)
    }
}
