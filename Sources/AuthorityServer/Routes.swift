// Routes: the authority's table. The router serves it, and the OpenAPI document is made from it, so the two cannot differ.

import AuthorityAPI
import ControlAPI
import Foundation
import HTTPTypes
import Licensing
import WebAPI

struct Route: Sendable {
    let operation: APIOperation
    /// - Returns: the answer, refusals by the rules too; throws what is refused before a rule is asked.
    let handle: @Sendable (AuthorityStore, Question<Data>) async throws -> StoredAnswer
}

extension Question {
    func with<New>(_ body: New) -> Question<New> {
        Question<New>(
            customerID: customerID, unitID: unitID, requestID: requestID, address: address, proof: proof, body: body,
            bytes: bytes)
    }
}

let routes: [Route] = [
    Route(
        operation: APIOperation(
            method: .post, path: AuthorityPath.lease, id: "lease",
            summary: "A first licence, a longer lease, or a licence for changed hardware", parameters: questionHeaders,
            body: LeaseRequest.self, bodyExample: Examples.leaseRequest, answer: LeaseAnswer.self,
            answerExample: Examples.leaseAnswer, refusals: refusals(but: [.notFound, .methodNotAllowed]))
    ) { store, question in
        let request = try StrictJSON.decode(LeaseRequest.self, from: question.body)
        try request.check()
        return try await store.lease(question.with(request))
    },
    Route(
        operation: APIOperation(
            method: .post, path: AuthorityPath.usage, id: "usage",
            summary: "What a unit did in the last hour: no address of a client, nothing of what they send",
            parameters: questionHeaders, body: UsageReport.self, bodyExample: Examples.usageReport, answer: UsageReceipt.self,
            answerExample: UsageReceipt(reports: 24),
            refusals: refusals(
                but: [.notFound, .methodNotAllowed, .paidUntilPassed, .suspended, .cancelled, .held, .offline]))
    ) { store, question in
        let report = try StrictJSON.decode(UsageReport.self, from: question.body)
        try report.check()
        return try await store.report(question.with(report))
    },
]

private let questionHeaders = [
    APIOperation.Parameter(
        name: AuthorityHeader.unit, place: .header, summary: "Who asks: a UUID in small letters",
        pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
    APIOperation.Parameter(
        name: AuthorityHeader.idempotencyKey, place: .header,
        summary: "New for each question: one that is asked again under its key gets the first answer again, for 48 hours",
        pattern: "^[!-~]{1,64}$"),
    APIOperation.Parameter(
        name: AuthorityHeader.proof, place: .header, isRequired: false,
        summary:
            "A token (JWS, EdDSA, typ fpx-proof+jwt) by the unit's key: aud fpx-authority, sub the unit, jti the "
            + "Idempotency-Key, iat the time within five minutes of the authority's, "
            + "sha256 of the body in hexadecimal, key the public half in base64url. A licence that is asked with one wants one by the "
            + "same key from then on"),
]

/// By status, with the codes that it can have.
private func refusals(but others: Set<AuthorityRefusal>) -> [Int: String] {
    Dictionary(grouping: AuthorityRefusal.allCases.filter { !others.contains($0) }, by: \.status)
        .mapValues { $0.map(\.rawValue).joined(separator: ", ") }
}

// MARK: What decoding does not see

private func require(_ name: String, _ text: String, bytes: ClosedRange<Int>) throws(WebRefusal) {
    let isClean = text.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control }
    guard bytes.contains(text.utf8.count), isClean else {
        throw invalid(
            name, "\(text.utf8.count) bytes\(isClean ? "" : " with control codes")",
            "\(bytes.lowerBound) to \(bytes.upperBound) bytes without control codes")
    }
}

private func require(_ name: String, _ number: Int, in range: ClosedRange<Int> = 0...Int.max) throws(WebRefusal) {
    guard range.contains(number) else {
        throw invalid(name, "\(number)", "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
}

private func require(_ name: String, _ list: [String], countMax: Int, bytesMax: Int) throws(WebRefusal) {
    guard list.count <= countMax else { throw invalid(name, "a list of \(list.count)", "at most \(countMax)") }
    for text in list { try require(name, text, bytes: 1...bytesMax) }
}

private func invalid(_ name: String, _ found: String, _ expected: String) -> WebRefusal {
    WebRefusal(
        .unprocessableContent, code: AuthorityRefusal.invalidValue.rawValue,
        message: "\(name): found \(found), expected \(expected)")
}

/// What a licence can carry.
private let numbers = 0...4_294_967_295

extension LeaseRequest {
    func check() throws(WebRefusal) {
        try require("hardware.cpu_model", hardware.cpuModel, bytes: 0...256)
        try require("hardware.logical_cpus_number", hardware.logicalCpusNumber, in: 1...numbers.upperBound)
        try require("hardware.total_memory_size", hardware.totalMemorySize, in: numbers)
        try require("hardware.hostname", hardware.hostname, bytes: 0...255)
        try require("hardware.addresses_ipv4", hardware.addressesIpv4, countMax: 1024, bytesMax: 15)
        for address in hardware.addressesIpv4 where !Address.isIPv4(address) {
            throw invalid("hardware.addresses_ipv4", "\"\(address)\"", "addresses such as 192.0.2.1")
        }
        try require("hardware.addresses_ipv6", hardware.addressesIpv6 ?? [], countMax: 1024, bytesMax: 45)
        for address in hardware.addressesIpv6 ?? [] where !Address.isIPv6(address) {
            throw invalid("hardware.addresses_ipv6", "\"\(address)\"", "addresses such as 2001:db8::1")
        }
        if let key = hardware.unitKey, !UnitKey.isPublic(key) {
            throw invalid("hardware.unit_key", "\(key.utf8.count) bytes", "an Ed25519 public key in base64url")
        }
        try require("version", version, bytes: 1...64)
        if let licenseId { try require("license_id", licenseId, bytes: 1...64) }
        // There must be a next one.
        if let epoch { try require("epoch", epoch, in: 0...numbers.upperBound - 1) }
    }
}

extension UsageReport {
    func check() throws(WebRefusal) {
        for (name, text) in [
            ("version", version), ("virtualization", virtualization), ("kernel", kernel), ("distribution", distribution),
            ("distribution_version", distributionVersion),
        ] {
            try require(name, text, bytes: 0...256)
        }
        for (name, number) in [
            ("incoming_speed", incomingSpeed), ("outgoing_speed", outgoingSpeed), ("active_clients_ipv4", activeClientsIpv4),
            ("active_clients_ipv6", activeClientsIpv6), ("sessions", sessions), ("admissions_per_second", admissionsPerSecond),
            ("census_microseconds", censusMicroseconds),
        ] {
            try require(name, number)
        }
        for (name, list) in [("hooks", hooks), ("cpu_flags", cpuFlags), ("features", features)] {
            try require(name, list, countMax: 1024, bytesMax: 64)
        }
    }
}

/// What the document shows.
enum Examples {
    static let leaseRequest = LeaseRequest(
        hardware: HardwareReport(
            cpuModel: "Example CPU @ 3.00GHz", logicalCpusNumber: 8, totalMemorySize: 16005, addressesIpv4: ["192.0.2.10"],
            hostname: "unit1"), licenseId: "6b7e5c1e-2f64-4f0b-9d0e-0c5d7c9a4f11", epoch: 41, version: "1.0.0")
    static let leaseAnswer = LeaseAnswer(
        license: "eyJ...", externalAddress: "198.51.100.7",
        keys: [
            LeaseAnswer.Key(
                kid: "k2026-11-21",
                pem: """
                    -----BEGIN PUBLIC KEY-----
                    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
                    -----END PUBLIC KEY-----

                    """)
        ], reissuesLeft: 3)
    static let usageReport = UsageReport(
        version: "1.0.0", hooks: ["haproxy", "nginx"], incomingSpeed: 120_000_000, outgoingSpeed: 950_000_000,
        activeClientsIpv4: 410, activeClientsIpv6: 35, sessions: 812, admissionsPerSecond: 95, virtualization: "kvm",
        censusMicroseconds: 740, kernel: "6.1.0", distribution: "debian", distributionVersion: "12",
        cpuFlags: ["avx2", "sse4_2"], features: ["membarrier", "rseq"])
}
