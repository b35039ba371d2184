// What goes over the wire: bodies as etcd's gateway takes them, and its answers, checked.

/// Where an answer comes from, and of what state of etcd it tells.
package struct EtcdHeader: Equatable, Sendable {
    package var revision = 0
    /// Grows with each election.
    package var term = 0
    package var clusterID: UInt64 = 0
    package var memberID: UInt64 = 0

    init() {}

    init(_ reader: inout JSONReader) throws(JSONFault) {
        var header = EtcdHeader()
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "revision": header.revision = try reader.integer()
            case "raft_term": header.term = try reader.integer()
            case "cluster_id": header.clusterID = try reader.integer(UInt64.self)
            case "member_id": header.memberID = try reader.integer(UInt64.self)
            default: try reader.skip()
            }
        }
        guard header.revision >= 0, header.term >= 0 else { throw reader.fault("a header with a revision and a term") }
        self = header
    }
}

/// A key as it was read.
package struct EtcdValue: Equatable, Sendable {
    package var key = ""
    package var value: [UInt8] = []
    /// That wrote it last, and that created it.
    package var revision = 0
    package var createRevision = 0
    /// 0: none.
    package var lease = 0

    init() {}

    init(_ reader: inout JSONReader) throws(JSONFault) {
        var value = EtcdValue()
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "key": value.key = Self.text(try reader.data())
            case "value": value.value = try reader.data()
            case "mod_revision": value.revision = try reader.integer()
            case "create_revision": value.createRevision = try reader.integer()
            case "lease": value.lease = try reader.integer()
            default: try reader.skip()
            }
        }
        guard !value.key.isEmpty, value.revision > 0, value.createRevision >= 0 else {
            throw reader.fault("a key with the revision that wrote it")
        }
        self = value
    }

    /// Anybody may write a key that is no text: it is shown by its bytes, so that two of them stay two.
    private static func text(_ key: [UInt8]) -> String {
        if let text = String(validating: key, as: UTF8.self) { return text }
        return key.map { (0x20...0x7E).contains($0) ? String(UnicodeScalar($0)) : "\\x" + String($0, radix: 16) }.joined()
    }
}

/// The keys of a range at one revision.
package struct EtcdRange: Sendable {
    package var header = EtcdHeader()
    /// Sorted by key.
    package var values: [EtcdValue] = []
    /// Of all keys of the range, whatever of them was asked for.
    package var count = 0
    package var hasMore = false

    init() {}

    init(_ reader: inout JSONReader) throws(JSONFault) {
        var range = EtcdRange()
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "header": range.header = try EtcdHeader(&reader)
            case "kvs": try reader.array { reader throws(JSONFault) in range.values.append(try EtcdValue(&reader)) }
            case "count": range.count = try reader.integer()
            case "more": range.hasMore = try reader.bool()
            default: try reader.skip()
            }
        }
        guard range.count >= range.values.count else {
            throw JSONFault(at: 0, found: "count \(range.count)", expected: "at least the \(range.values.count) keys in it")
        }
        guard range.header.revision > 0 else {
            throw JSONFault(at: 0, found: "no header", expected: "one with the revision that was read")
        }
        self = range
    }
}

/// Which keys, and what of them.
package struct EtcdRangeRequest: Sendable {
    package var key: String
    package var isPrefix = true
    /// The keys from `key` to before this one, whatever they begin with.
    package var end: String?
    package var keysOnly = false
    /// Keys that were written before are counted only.
    package var minModRevision = 0
    /// 0: the newest.
    package var revision = 0
    /// 0: none.
    package var limit = 0
    package var countOnly = false

    package init(prefix: String, minModRevision: Int = 0) {
        key = prefix
        self.minModRevision = minModRevision
    }

    package init(key: String) {
        self.key = key
        isPrefix = false
    }

    var body: String {
        var members = EtcdKey.range(key, isPrefix: isPrefix)
        if let end { members += ",\"range_end\":\"\(Base64.encode(end.utf8))\"" }
        if keysOnly { members += ",\"keys_only\":true" }
        if minModRevision > 0 { members += ",\"min_mod_revision\":\"\(minModRevision)\"" }
        if revision > 0 { members += ",\"revision\":\"\(revision)\"" }
        if limit > 0 { members += ",\"limit\":\"\(limit)\"" }
        if countOnly { members += ",\"count_only\":true" }
        return "{\(members)}"
    }
}

enum EtcdKey {
    /// The members `key` and, for a prefix, `range_end`.
    static func range(_ key: String, isPrefix: Bool) -> String {
        let key = Array(key.utf8)
        guard isPrefix else { return "\"key\":\"\(Base64.encode(key))\"" }
        // All keys: from the smallest there is to no end.
        guard !key.isEmpty else { return "\"key\":\"AA==\",\"range_end\":\"AA==\"" }
        // No byte of UTF-8 is 0xFF, so that one more than the last is another byte.
        var end = key
        end[end.count - 1] += 1
        return "\"key\":\"\(Base64.encode(key))\",\"range_end\":\"\(Base64.encode(end))\""
    }
}

/// Several steps that take effect together, if all comparisons hold.
package struct EtcdTransaction: Sendable {
    package enum Comparison: Sendable {
        case modRevision(key: String, Int)
        /// 0: the key is not there.
        case createRevision(key: String, Int)
    }

    package enum Step: Sendable {
        case put(key: String, value: [UInt8], lease: Int = 0)
        case delete(key: String)
        case range(EtcdRangeRequest)
    }

    package var comparisons: [Comparison]
    package var success: [Step]
    package var failure: [Step]

    package init(if comparisons: [Comparison] = [], then success: [Step], else failure: [Step] = []) {
        self.comparisons = comparisons
        self.success = success
        self.failure = failure
    }

    package struct Answer: Sendable {
        package var header = EtcdHeader()
        package var succeeded = false
        /// Of the steps that were taken, in their order.
        package var ranges: [EtcdRange] = []
    }

    /// Whether asking twice is as good as once.
    var isQuestion: Bool {
        (success + failure).allSatisfy { if case .range = $0 { true } else { false } }
    }

    var body: String {
        let compare = comparisons.map { comparison -> String in
            switch comparison {
            case .modRevision(let key, let revision): Self.compare(key, "MOD", "mod_revision", revision)
            case .createRevision(let key, let revision): Self.compare(key, "CREATE", "create_revision", revision)
            }
        }
        return "{\"compare\":[\(compare.joined(separator: ","))],\"success\":[\(Self.steps(success))]"
            + ",\"failure\":[\(Self.steps(failure))]}"
    }

    func answer(_ reader: inout JSONReader) throws(JSONFault) -> Answer {
        var answer = Answer()
        var count = 0
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "header": answer.header = try EtcdHeader(&reader)
            case "succeeded": answer.succeeded = try reader.bool()
            case "responses":
                try reader.array { reader throws(JSONFault) in
                    count += 1
                    try reader.object { name, reader throws(JSONFault) in
                        if name == "response_range" {
                            answer.ranges.append(try EtcdRange(&reader))
                        } else {
                            try reader.skip()
                        }
                    }
                }
            default: try reader.skip()
            }
        }
        let steps = answer.succeeded ? success : failure
        let ranges = steps.count { if case .range = $0 { true } else { false } }
        guard count == steps.count, answer.ranges.count == ranges else {
            throw JSONFault(
                at: 0, found: "\(count) responses, \(answer.ranges.count) of ranges",
                expected: "\(steps.count), \(ranges) of ranges")
        }
        return answer
    }

    private static func compare(_ key: String, _ target: String, _ member: String, _ revision: Int) -> String {
        "{\"key\":\"\(Base64.encode(key.utf8))\",\"target\":\"\(target)\",\"result\":\"EQUAL\",\"\(member)\":\"\(revision)\"}"
    }

    private static func steps(_ steps: [Step]) -> String {
        steps.map { step -> String in
            switch step {
            case .put(let key, let value, let lease): "{\"request_put\":\(put(key, value, lease: lease))}"
            case .delete(let key): "{\"request_delete_range\":{\(EtcdKey.range(key, isPrefix: false))}}"
            case .range(let request): "{\"request_range\":\(request.body)}"
            }
        }.joined(separator: ",")
    }

    static func put(_ key: String, _ value: [UInt8], lease: Int) -> String {
        "{\"key\":\"\(Base64.encode(key.utf8))\",\"value\":\"\(Base64.encode(value))\""
            + (lease == 0 ? "}" : ",\"lease\":\"\(lease)\"}")
    }
}

/// A refusal of etcd, in whatever form its releases write it.
struct EtcdRefusal {
    var code = 0
    var message = ""

    init(code: Int = 0, message: String = "") {
        self.code = code
        self.message = message
    }

    init(_ reader: inout JSONReader) throws(JSONFault) {
        var refusal = EtcdRefusal()
        var text = ""
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "code", "grpc_code": refusal.code = try reader.integer()
            case "message": refusal.message = try reader.text()
            // Of a stream it is all of the refusal.
            case "error" where reader.isAtObject: refusal = try EtcdRefusal(&reader)
            case "error": text = try reader.text()
            default: try reader.skip()
            }
        }
        if refusal.message.isEmpty { refusal.message = text }
        refusal.message = Self.shown(refusal.message)
        self = refusal
    }

    /// It is printed on terminals: nothing in it may move them.
    static func shown(_ message: String) -> String {
        String(
            String.UnicodeScalarView(
                message.unicodeScalars.prefix(300).map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .lineSeparator, .paragraphSeparator: " "
                    default: scalar
                    }
                }))
    }
}
