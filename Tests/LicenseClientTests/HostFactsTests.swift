import Foundation
import LicenseClient
import Testing

@Suite struct HostFactsTests {
    /// A root folder in which the files say what a test wants.
    private func root(_ files: [String: String]) throws -> String {
        let root = FileManager.default.temporaryDirectory.path + "/host-" + UUID().uuidString
        for (path, text) in files {
            let url = URL(filePath: root + path)
            try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: url)
        }
        return root
    }

    private static let guest = "processor\t: 0\nflags\t\t: fpu sse hypervisor avx2\n\nprocessor\t: 1\nflags\t: other\n"
    private static let bare = "processor\t: 0\nflags\t\t: fpu sse avx2\n"

    @Test(
        arguments: [
            (["/proc/cpuinfo": bare], "none", "/proc/cpuinfo"), (["/proc/cpuinfo": guest], "vm-other", "/proc/cpuinfo"),
            ([:], "", ""),
            (["/proc/cpuinfo": guest, "/sys/hypervisor/type": "xen\n"], "xen", "/sys/hypervisor/type"),
            (["/proc/cpuinfo": guest, "/sys/class/dmi/id/sys_vendor": "QEMU\n"], "qemu", "/sys/class/dmi/id/sys_vendor"),
            (
                ["/sys/class/dmi/id/sys_vendor": "QEMU\n", "/sys/class/dmi/id/product_name": "KVM\n"], "kvm",
                "/sys/class/dmi/id/product_name"
            ),
            (["/sys/class/dmi/id/sys_vendor": "VMware, Inc.\n"], "vmware", "/sys/class/dmi/id/sys_vendor"),
            (["/sys/class/dmi/id/sys_vendor": "Dell Inc.\n", "/proc/cpuinfo": bare], "none", "/proc/cpuinfo"),
            // A container on a virtual machine is a container.
            (
                ["/proc/1/environ": "PATH=/bin\0container=podman\0A=b\0", "/sys/class/dmi/id/sys_vendor": "QEMU\n"], "podman",
                "/proc/1/environ"
            ),
            (["/.dockerenv": "", "/proc/cpuinfo": guest], "docker", "/.dockerenv"),
            (["/run/.containerenv": "engine=x\n"], "podman", "/run/.containerenv"),
            (["/proc/1/cgroup": "0::/kubepods/besteffort/pod1\n"], "kubernetes", "/proc/1/cgroup"),
            (["/proc/1/cgroup": "0::/init.scope\n", "/proc/cpuinfo": bare], "none", "/proc/cpuinfo"),
            // What a file says at will does not get out as it is.
            (["/proc/1/environ": "container=Evil \u{1B}[2J\0"], "evil", "/proc/1/environ"),
        ] as [([String: String], String, String)])
    func virtualization(_ files: [String: String], _ name: String, _ source: String) throws {
        let root = try root(files)
        defer { try? FileManager.default.removeItem(atPath: root) }
        #expect(Virtualization.detect(root: root) == Virtualization(name: name, source: source))
    }

    /// This host, beside systemd's own answer where there is one.
    @Test func thisHost() throws {
        let found = Virtualization.detect()
        #expect(!found.name.isEmpty && found.name.allSatisfy { $0.isASCII })
        let cpuinfo = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
        #expect(cpuinfo.contains("flags") == !CPUFlags.read(cpuinfo).isEmpty)
        #expect(!Distribution.read().id.isEmpty)
    }

    @Test func flags() {
        #expect(CPUFlags.read(Self.guest) == ["fpu", "sse", "hypervisor", "avx2"])
        #expect(CPUFlags.read("Features : fp asimd\n") == ["fp", "asimd"])
        #expect(CPUFlags.read("") == [])
    }

    @Test(arguments: [
        ("PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n", "debian", "12"),
        ("ID='opensuse-leap'\nVERSION_ID=15.5\nID_LIKE=suse", "opensuse-leap", "15.5"), ("ID=\"a\\\"b\\\\c\"", "a\"b\\c", ""),
        ("", "", ""), ("ID=\"\nVERSION_ID=\"", "\"", "\""),
    ])
    func distributions(_ text: String, _ id: String, _ version: String) {
        let found = Distribution(text)
        #expect(found.id == id && found.version == version)
    }
}
