import AuthorityAPI
import ControlAPI
import Foundation
import Licensing
import Synchronization
import Testing

/// How an answer is made; a test changes what it wants to be wrong.
struct Forge: Sendable {
    var claims: LicenseClaims
    var time: Int
    var status = 200
    var licenseKey: SigningKey
    var sealKey: SigningKey
    /// Whom and what the seal says it answers; nil: who asked, what was asked.
    var unit: String?
    var id: String?
    var externalAddress = "203.0.113.7"
    var reissuesLeft = 3
    var keys: [LeaseAnswer.Key]
    /// In place of a lease.
    var body: [UInt8]?
    var headers: [String] = []
    /// Changes the body after it was sealed.
    var spoil: (@Sendable ([UInt8]) -> [UInt8])?
    var isSealed = true

    init(_ station: Station, epoch: Int = 1, id: String = "L1", seats: Int = 40, days: Int = 14) {
        let now = station.world.now.withLock { $0 }
        claims = LicenseClaims(
            issuer: "tests", customer: "ACME", licenseID: id, issuedAt: now, notBefore: now, leaseExpiry: now + days * day,
            paidUntil: now + 1000 * day, seats: PerType(furl: seats, fnbi: 0, fcas: 0),
            modelMax: PerType(furl: 500, fnbi: 0, fcas: 0),
            hardware: HardwareBinding(machine, binds: [.cpuModel, .logicalCPUsNumber]), epoch: epoch)
        time = now
        licenseKey = station.key
        sealKey = station.key
        keys = [.init(kid: "k1", pem: station.key.publicPEM)]
    }

    /// A refusal, sealed as any answer.
    static func refusal(_ station: Station, _ code: String, status: Int, headers: [String] = []) -> Forge {
        var forge = Forge(station)
        forge.status = status
        forge.headers = headers
        forge.body = Array(
            (try? ControlJSON.encoder().encode(APIError(code: code, message: "because \u{1B}[31mof it"))) ?? Data())
        return forge
    }

    func bytes(for question: RawQuestion) async throws -> [UInt8] {
        var text = try await LicenseToken.sign(claims, with: licenseKey)
        text.removeLast()
        var body =
            try body
            ?? Array(
                ControlJSON.encoder().encode(
                    LeaseAnswer(license: text, externalAddress: externalAddress, keys: keys, reissuesLeft: reissuesLeft)))
        let seal = AnswerSeal(
            serverTime: time, unitID: unit ?? question.unit, requestID: id ?? question.id, status: status, body: body)
        let token = try await seal.sign(with: sealKey)
        if let spoil { body = spoil(body) }
        return Self.http(status, headers + (isSealed ? ["\(AuthorityHeader.answer): \(token)"] : []), body)
    }

    static func http(_ status: Int, _ headers: [String], _ body: [UInt8]) -> [UInt8] {
        let head = ["HTTP/1.1 \(status) X", "Content-Type: application/json", "Content-Length: \(body.count)"] + headers
        return Array((head.joined(separator: "\r\n") + "\r\n\r\n").utf8) + body
    }
}

extension Station {
    /// Makes the authority answer by this forge.
    func answer(_ forge: Forge) {
        server.react { question in
            do { return .send(try await forge.bytes(for: question)) } catch {
                Issue.record("\(error)")
                return .silence
            }
        }
    }

    /// Renews with a good answer.
    @discardableResult
    func renew(epoch: Int, seats: Int = 40, days: Int = 14) async throws -> Int {
        answer(Forge(self, epoch: epoch, seats: seats, days: days))
        return try await renewal.renew().get().epoch
    }

    /// Renews, and expects to be refused and nothing to change.
    func expectRefused(_ text: String, by forge: Forge, sourceLocation: SourceLocation = #_sourceLocation) async {
        answer(forge)
        await expectRefused(text, sourceLocation: sourceLocation)
    }

    func expectRefused(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) async {
        let before = everything
        switch await renewal.renew() {
        case .success(let renewal): Issue.record("found \(renewal), expected \(text)", sourceLocation: sourceLocation)
        case .failure(let error):
            #expect("\(error)".contains(text), "found: \(error)", sourceLocation: sourceLocation)
        }
        let after = everything
        let changed = Set(before.keys).union(after.keys).filter { before[$0] != after[$0] }
        #expect(changed == [], sourceLocation: sourceLocation)
    }
}
