// The frames of SPOP 2.0. (haproxy, doc/SPOE.txt, sections 3.2 to 3.5)
//
//     length : 4 bytes | type : 1 byte | flags : 4 bytes | stream id : varint | frame id : varint | payload

/// Why a conversation is ended: the protocol's status codes.
enum SPOPError: UInt32, Error {
    case normal = 0
    case inputOutput = 1
    case timeout = 2
    case frameTooBig = 3
    case invalidFrame = 4
    case noVersion = 5
    case noMaxFrameSize = 6
    case noCapabilities = 7
    case unsupportedVersion = 8
    case badMaxFrameSize = 9
    case fragmentationUnsupported = 10
    case interlacedFrames = 11
    case noFrameID = 12
    case resources = 13
    case unknown = 99

    var message: String {
        switch self {
        case .normal: "normal"
        case .inputOutput: "I/O error"
        case .timeout: "a timeout occurred"
        case .frameTooBig: "frame is too big"
        case .invalidFrame: "invalid frame received"
        case .noVersion: "version value not found"
        case .noMaxFrameSize: "max-frame-size value not found"
        case .noCapabilities: "capabilities value not found"
        case .unsupportedVersion: "unsupported version"
        case .badMaxFrameSize: "max-frame-size too big or too small"
        case .fragmentationUnsupported: "fragmentation not supported"
        case .interlacedFrames: "invalid interlaced frames"
        case .noFrameID: "frame-id not found"
        case .resources: "resource allocation error"
        case .unknown: "unknown error"
        }
    }
}

enum SPOPFrameType: UInt8 {
    case unset = 0
    case haproxyHello = 1
    case haproxyDisconnect = 2
    case notify = 3
    case agentHello = 101
    case agentDisconnect = 102
    case ack = 103
}

/// One frame without its length.
struct SPOPFrame: Equatable {
    static let isFinal: UInt32 = 1

    /// Types that we do not know are skipped, so the raw value is kept.
    var type: UInt8
    var flags = SPOPFrame.isFinal
    var streamID: UInt64 = 0
    var frameID: UInt64 = 0
    var payload: ArraySlice<UInt8> = []

    init(type: SPOPFrameType, streamID: UInt64 = 0, frameID: UInt64 = 0, payload: [UInt8] = []) {
        self.type = type.rawValue
        self.streamID = streamID
        self.frameID = frameID
        self.payload = payload[...]
    }

    /// From the bytes behind the length.
    init(_ bytes: ArraySlice<UInt8>) throws(SPOPError) {
        var reader = SPOPReader(bytes)
        type = try reader.byte()
        flags = try reader.uint32()
        streamID = try reader.varint()
        frameID = try reader.varint()
        payload = reader.remainder
    }

    /// With the length before it.
    var encoded: [UInt8] {
        var body = SPOPWriter()
        body.byte(type)
        body.uint32(flags)
        body.varint(streamID)
        body.varint(frameID)
        var whole = SPOPWriter()
        whole.uint32(UInt32(body.bytes.count + payload.count))
        return whole.bytes + body.bytes + payload
    }

    static func disconnect(_ status: SPOPError) -> SPOPFrame {
        var payload = SPOPWriter()
        payload.string("status-code")
        payload.value(.unsigned(UInt64(status.rawValue)))
        payload.string("message")
        payload.value(.string(status.message))
        return SPOPFrame(type: .agentDisconnect, payload: payload.bytes)
    }
}

/// One message of a NOTIFY frame.
struct SPOPMessage: Equatable {
    let name: String
    let arguments: [String: SPOPValue]

    static func list(_ payload: ArraySlice<UInt8>) throws(SPOPError) -> [SPOPMessage] {
        var reader = SPOPReader(payload)
        var messages: [SPOPMessage] = []
        while !reader.isAtEnd {
            let name = String(decoding: try reader.string(), as: UTF8.self)
            let count = Int(try reader.byte())
            messages.append(SPOPMessage(name: name, arguments: try reader.pairs(count)))
        }
        return messages
    }
}

/// What haproxy says first.
struct SPOPHello: Equatable {
    static let version = "2.0"
    /// The smallest limit on frames that the protocol allows, in bytes.
    static let frameSizeMin = 256

    let maxFrameSize: Int
    let canPipeline: Bool
    let isHealthcheck: Bool

    /// - Parameter largest: our own limit on frames, in bytes.
    init(_ payload: ArraySlice<UInt8>, largest: Int) throws(SPOPError) {
        var reader = SPOPReader(payload)
        let pairs = try reader.pairs()
        guard let versions = pairs["supported-versions"]?.bytes else { throw .noVersion }
        guard let theirs = pairs["max-frame-size"]?.number else { throw .noMaxFrameSize }
        guard let capabilities = pairs["capabilities"]?.bytes else { throw .noCapabilities }
        // A major version that is offered includes its minor ones, and ours is the first of its major.
        guard Self.words(versions).contains(where: { $0.split(separator: ".").first == "2" }) else { throw .unsupportedVersion }
        guard theirs >= Self.frameSizeMin else { throw .badMaxFrameSize }
        maxFrameSize = min(theirs, largest)
        canPipeline = Self.words(capabilities).contains("pipelining")
        isHealthcheck = pairs["healthcheck"] == .boolean(true)
    }

    private static func words(_ bytes: [UInt8]) -> [String] {
        String(decoding: bytes.filter { $0 != UInt8(ascii: " ") }, as: UTF8.self).split(separator: ",").map(String.init)
    }

    var answer: SPOPFrame {
        var payload = SPOPWriter()
        payload.string("version")
        payload.value(.string(Self.version))
        payload.string("max-frame-size")
        payload.value(.unsigned(UInt64(maxFrameSize)))
        payload.string("capabilities")
        payload.value(.string(canPipeline ? "pipelining" : ""))
        return SPOPFrame(type: .agentHello, payload: payload.bytes)
    }
}

/// What an agent makes haproxy do: set a variable of the stream. (Those of haproxy's session are shared by all streams of an
/// HTTP/2 connection, so that one's verdict would be overwritten by the next one's.)
struct SPOPSetVariable: Equatable {
    private static let setVariable: UInt8 = 1
    private static let argumentCount: UInt8 = 3
    private static let transactionScope: UInt8 = 2

    let name: String
    let value: SPOPValue

    func write(to writer: inout SPOPWriter) {
        writer.byte(Self.setVariable)
        writer.byte(Self.argumentCount)
        writer.byte(Self.transactionScope)
        writer.string(name)
        writer.value(value)
    }
}
