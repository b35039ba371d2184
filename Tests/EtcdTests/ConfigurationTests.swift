import Etcd
import Testing

struct ConfigurationTests {
    @Test func endpoints() throws {
        let configuration = try EtcdConfiguration(
            endpoints: "http://a, HTTPS://b.example:23790/,https://[::1]:2379,http://a:2379")
        #expect(configuration.endpoints == ["http://a:2379", "https://b.example:23790", "https://[::1]:2379"])
    }

    @Test(arguments: [
        "", ",", "a:2379", "ftp://a", "http://", "http://a:0", "http://a:65536", "http://a:b", "http://a/v3", "http://u@a",
        "http://a?b", "http://a#b", "http://a b", "http://a,,http://b", "http://a\nb",
    ])
    func endpointsThatAreNone(text: String) {
        #expect(throws: EtcdError.self) { try EtcdConfiguration(endpoints: text) }
    }

    @Test func pairsGoTogether() async {
        #expect(
            await failure { () throws(EtcdError) in try EtcdConfiguration(endpoints: "http://a", user: "u") }
                == .setting(
                    name: "sharing-password-file", found: "nothing",
                    expected: "a value: sharing-user and sharing-password-file go together"))
        for (certificate, key) in [("a", nil), (nil, "a")] as [(String?, String?)] {
            #expect(throws: EtcdError.self) {
                try EtcdConfiguration(endpoints: "https://a", certificateFile: certificate, privateKeyFile: key)
            }
        }
    }
}
