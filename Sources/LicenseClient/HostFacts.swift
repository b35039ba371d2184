// HostFacts: what the usage report says of the host, by what the kernel and the machine's own tables tell.

import Foundation

/// On what this machine runs.
///
/// A container is told before the machine below it, because it is what a person who looks at this host has rented or set up.
package struct Virtualization: Equatable, Sendable {
    /// `none`, `docker`, `kvm`, `vmware` ...; empty where it cannot be told.
    package var name: String
    /// The file that says so, for the log.
    package var source: String

    /// What makers of virtual machines write into the tables of the firmware, by how it begins.
    private static let makers = [
        ("KVM", "kvm"), ("OpenStack", "kvm"), ("KubeVirt", "kvm"), ("Amazon EC2", "amazon"), ("QEMU", "qemu"),
        ("VMware", "vmware"), ("VMW", "vmware"), ("innotek GmbH", "oracle"), ("VirtualBox", "oracle"),
        ("Oracle Corporation", "oracle"), ("Xen", "xen"), ("Bochs", "bochs"), ("Parallels", "parallels"), ("BHYVE", "bhyve"),
        ("Hyper-V", "microsoft"), ("Microsoft Corporation Virtual", "microsoft"), ("Apple Virtualization", "apple"),
        ("Google Compute Engine", "google"), ("Google", "google"), ("Alibaba Cloud ECS", "kvm"),
    ]
    private static let firmware = ["product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version"]
    private static let containers = ["kubepods", "docker", "libpod", "lxc", "machine.slice"]

    package init(name: String, source: String) {
        self.name = name
        self.source = source
    }

    /// - Parameter root: stands for `/`; empty: the host's own.
    package static func detect(root: String = "") -> Virtualization {
        container(root) ?? machine(root)
    }

    private static func container(_ root: String) -> Virtualization? {
        // Container managers set it for the first process; only its owner and root may read it.
        if let variables = text(root, "/proc/1/environ")?.split(separator: "\0"),
            let variable = variables.first(where: { $0.hasPrefix("container=") })
        {
            return Virtualization(name: word(variable.dropFirst("container=".count)), source: "/proc/1/environ")
        }
        for (path, name) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")]
        where access(root + path, F_OK) == 0 {
            return Virtualization(name: name, source: path)
        }
        if let groups = text(root, "/proc/1/cgroup"), let found = containers.first(where: { groups.contains("/" + $0) }) {
            let name = ["machine.slice": "container", "libpod": "podman", "kubepods": "kubernetes"][found] ?? found
            return Virtualization(name: name, source: "/proc/1/cgroup")
        }
        return nil
    }

    private static func machine(_ root: String) -> Virtualization {
        for file in firmware {
            let path = "/sys/class/dmi/id/" + file
            guard let value = text(root, path), let maker = makers.first(where: { value.hasPrefix($0.0) }) else { continue }
            return Virtualization(name: maker.1, source: path)
        }
        if let type = text(root, "/sys/hypervisor/type") {
            return Virtualization(name: word(type[...]), source: "/sys/hypervisor/type")
        }
        guard let cpus = text(root, "/proc/cpuinfo") else { return Virtualization(name: "", source: "") }
        let isGuest = CPUFlags.read(cpus).contains("hypervisor")
        return Virtualization(name: isGuest ? "vm-other" : "none", source: "/proc/cpuinfo")
    }

    private static func text(_ root: String, _ path: String) -> String? {
        guard let text = try? String(contentsOfFile: root + path, encoding: .utf8), !text.isEmpty else { return nil }
        return text
    }

    /// One word, of what a file may say at will.
    private static func word(_ text: Substring) -> String {
        String(text.lowercased().prefix { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) }.prefix(32))
    }
}

package enum CPUFlags {
    /// Of the first CPU: `flags` of x86, `Features` of ARM.
    package static func read(_ cpuinfo: String) -> [String] {
        let line = cpuinfo.split(separator: "\n").first { $0.hasPrefix("flags") || $0.hasPrefix("Features") }
        guard let line, let colon = line.firstIndex(of: ":") else { return [] }
        return line[line.index(after: colon)...].split(separator: " ").map(String.init)
    }
}

/// What /etc/os-release says (man 5 os-release).
package struct Distribution: Equatable, Sendable {
    package var id = ""
    package var version = ""

    package static func read(root: String = "") -> Distribution {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            guard let text = try? String(contentsOfFile: root + path, encoding: .utf8) else { continue }
            return Distribution(text)
        }
        return Distribution()
    }

    package init() {}

    package init(_ text: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            if line.hasPrefix("ID=") { id = Self.value(line.dropFirst(3)) }
            if line.hasPrefix("VERSION_ID=") { version = Self.value(line.dropFirst(11)) }
        }
    }

    /// As a shell reads it; a backslash keeps what follows.
    private static func value(_ text: Substring) -> String {
        var text = text.trimmingCharacters(in: .whitespaces)
        if let quote = text.first, "\"'".contains(quote), text.count > 1, text.last == quote {
            text = String(text.dropFirst().dropLast())
        }
        var value = ""
        var isKept = false
        for letter in text {
            if letter == "\\", !isKept {
                isKept = true
            } else {
                value.append(letter)
                isKept = false
            }
        }
        return String(value.prefix(128))
    }
}
