// Admits and ends keyed sessions as fast as it can until it is killed.
//
// Arguments: segment, journal, seed, round.

import Admission
import Foundation
import KeyedSessions

let arguments = CommandLine.arguments
let segment = try Segment.attachKeeper(path: arguments[1])
let sessions = try KeyedSessions(segment: segment, journal: arguments[2])
let seed = UInt64(arguments[3]) ?? 0
let round = arguments[4]

for thread in 0..<4 {
    Thread.detachNewThread {
        var state = seed &+ UInt64(thread) &* 977
        var open: [SessionKey] = []
        var next = 0
        while true {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            if open.count < 200, state >> 33 % 2 == 0 || open.isEmpty {
                guard let key = try? SessionKey("\(round) \(thread) \(next)"),
                    let client = try? Endpoint("192.0.2.1", port: 1 + next % 60000),
                    let request = try? SessionRequest(key: key, hook: .haproxy, pool: 0, client: client)
                else { fatalError("key") }
                next += 1
                _ = sessions.admit(request)
                open.append(key)
            } else {
                let index = Int(state >> 40) % open.count
                sessions.release(key: open[index], hook: .haproxy)
                open[index] = open[open.count - 1]
                open.removeLast()
            }
        }
    }
}
FileHandle.standardOutput.write(Data("a".utf8))
while true { sleep(1000) }
