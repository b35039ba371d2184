// Answers of etcd, and of whatever stands in its place.

private let transaction = EtcdTransaction(
    if: [.modRevision(key: "k", 1)], then: [.put(key: "k", value: []), .range(EtcdRangeRequest(prefix: "p"))],
    else: [.range(EtcdRangeRequest(prefix: "p"))])

func fuzzAnswers(_ bytes: [UInt8]) {
    read(bytes) { reader throws(JSONFault) in try EtcdRange(&reader) }.map(check)
    read(bytes) { reader throws(JSONFault) in try transaction.answer(&reader) }.map { answer in
        // Whoever asks takes the first one without a look.
        expect(answer.ranges.count == 1, "found \(answer.ranges.count) ranges, expected 1")
        answer.ranges.forEach(check)
    }
    read(bytes) { reader throws(JSONFault) in try EtcdRefusal(&reader) }.map { refusal in
        expect(isPlain(refusal.message), "found what moves a terminal in \(refusal.message)")
    }
    expect(isPlain(EtcdRefusal.shown(String(decoding: bytes, as: UTF8.self))), "found what moves a terminal")
    expect(Base64.decode(Array(Base64.encode(bytes).utf8)[...]) == bytes, "found other bytes after base64")
}

private func read<T>(_ bytes: [UInt8], _ value: (inout JSONReader) throws(JSONFault) -> T) -> T? {
    do throws(JSONFault) { return try JSONReader.read(bytes, value) } catch {
        expect((0...bytes.count).contains(error.at), "found a fault at \(error.at) of \(bytes.count) bytes")
        return nil
    }
}

private func check(_ range: EtcdRange) {
    expect(range.header.revision >= 0 && range.header.term >= 0, "found \(range.header)")
    for value in range.values { expect(!value.key.isEmpty && value.revision > 0, "found \(value)") }
}
