// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6), .strictMemorySafety(), .treatAllWarnings(as: .error),
]
// Programs that measure or torture the engine reach into raw memory all the time; marking each place would say nothing.
let toolSettings: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

let package = Package(
    name: "fpx",
    products: [
        .library(name: "Admission", targets: ["Admission"]),
        .library(name: "AdmissionC", targets: ["AdmissionC"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: []),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
    ],
    targets: [
        // Floor 0: what Swift cannot say.
        .target(name: "CAdmission"),
        .systemLibrary(name: "CNUMA", pkgConfig: "numa", providers: [.apt(["libnuma-dev"])]),
        .target(name: "CRivals"),
        .target(
            name: "CKeyedTable",
            linkerSettings: [.linkedLibrary("urcu-bp"), .linkedLibrary("urcu-cds"), .linkedLibrary("urcu-common")]),
        .target(name: "CLineEditor", linkerSettings: [.linkedLibrary("edit")]),
        // Floor 1: the engine, and its C face.
        .target(name: "Admission", dependencies: ["CAdmission"], swiftSettings: settings),
        .target(name: "AdmissionC", dependencies: ["Admission", "CAdmission"], swiftSettings: settings),
        .target(name: "AdmissionNUMA", dependencies: ["Admission", "CNUMA"], swiftSettings: settings),
        // Floor 2: what the daemon is made of.
        .target(name: "Basics", swiftSettings: toolSettings),
        .target(
            name: "Licensing",
            dependencies: [
                "Basics", .product(name: "Crypto", package: "swift-crypto"), .product(name: "JWTKit", package: "jwt-kit"),
            ], swiftSettings: toolSettings),
        .target(
            name: "Settings",
            dependencies: [
                "Basics", "Licensing", "SeatSharing", .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Yams", package: "Yams"),
            ], swiftSettings: toolSettings),
        .target(name: "KeyedSessions", dependencies: ["Admission", "CAdmission", "CKeyedTable"], swiftSettings: settings),
        .target(
            name: "SPOE",
            dependencies: [
                "Basics", "KeyedSessions", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: settings),
        .target(name: "ControlAPI", dependencies: ["Basics", "SeatSharing"], swiftSettings: settings),
        .target(
            name: "AuthorityAPI",
            dependencies: ["ControlAPI", "Licensing", .product(name: "Crypto", package: "swift-crypto")],
            swiftSettings: toolSettings),
        .target(
            name: "LicenseClient",
            dependencies: [
                "AuthorityAPI", "Basics", "ControlAPI", "Licensing",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], swiftSettings: toolSettings),
        .target(
            name: "WebAPI",
            dependencies: [
                "Basics", "ControlAPI", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ], swiftSettings: toolSettings),
        .target(
            name: "ControlPlane",
            dependencies: [
                "Basics", "ControlAPI", "WebAPI", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"), .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: toolSettings),
        .target(
            name: "AuthorityServer",
            dependencies: [
                "AuthorityAPI", "Basics", "ControlAPI", "Licensing", "WebAPI",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "GRDB", package: "GRDB.swift"), .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"), .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: toolSettings),
        .target(name: "SeatSharing", swiftSettings: settings),
        .target(
            name: "Etcd",
            dependencies: [
                "Basics", .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], swiftSettings: toolSettings),
        // Floor 3: programs.
        .executableTarget(
            name: "fpxd",
            dependencies: [
                "Admission", "AdmissionNUMA", "Basics", "CAdmission", "ControlAPI", "ControlPlane", "Etcd", "KeyedSessions",
                "LicenseClient", "Licensing", "SeatSharing", "Settings", "SPOE",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ], swiftSettings: toolSettings),
        .executableTarget(
            name: "fpx",
            dependencies: [
                "Basics", "ControlAPI", "CLineEditor", "SeatSharing",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ], swiftSettings: settings),
        .executableTarget(
            name: "fpx-authority",
            dependencies: [
                "AuthorityServer", "Basics", "ControlAPI", "Licensing",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ], swiftSettings: toolSettings),
        .executableTarget(
            name: "Bench",
            dependencies: [
                "Admission", "AdmissionC", "AdmissionNUMA", "CAdmission", "CRivals",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: toolSettings),
        .executableTarget(
            name: "Torture",
            dependencies: [
                "Admission", "CAdmission", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Torture", swiftSettings: toolSettings),
        .executableTarget(
            name: "FastPath", dependencies: ["Admission"], path: "Tests/FastPath", swiftSettings: toolSettings),
        .executableTarget(
            name: "NUMACheck", dependencies: ["Admission", "AdmissionNUMA", "CNUMA"], path: "Tests/NUMA/NUMACheck",
            swiftSettings: toolSettings),
        .executableTarget(
            name: "Simulator",
            dependencies: ["SeatSharing", "TestSupport", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Tests/Simulator", swiftSettings: toolSettings),
        .executableTarget(
            name: "Chaos",
            dependencies: [
                "Admission", "TestSupport", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Chaos", swiftSettings: toolSettings),
        .executableTarget(
            name: "AuthorityLoad",
            dependencies: [
                "AuthorityAPI", "AuthorityServer", "ControlAPI", "Licensing", "TestSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"), .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], path: "Tests/AuthorityLoad", swiftSettings: toolSettings),
        .target(name: "CTestSupport", path: "Tests/CTestSupport"),
        .target(
            name: "TestSupport", dependencies: ["CTestSupport"], path: "Tests/TestSupport", swiftSettings: toolSettings),
        .testTarget(
            name: "AdmissionTests", dependencies: ["Admission", "AdmissionC", "AdmissionNUMA", "CAdmission", "TestSupport"],
            exclude: ["FieldWorker", "Golden"], swiftSettings: toolSettings),
        .executableTarget(
            name: "KeyedSessionsVictim", dependencies: ["Admission", "KeyedSessions"], path: "Tests/KeyedSessionsTests/Victim",
            swiftSettings: toolSettings),
        .testTarget(
            name: "KeyedSessionsTests",
            dependencies: ["Admission", "KeyedSessions", "KeyedSessionsVictim", "CKeyedTable", "TestSupport"],
            exclude: ["Victim"],
            swiftSettings: toolSettings),
        .testTarget(
            name: "SPOETests",
            dependencies: [
                "Admission", "KeyedSessions", "SPOE", "TestSupport", .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            exclude: ["Corpus"], swiftSettings: toolSettings),
        .testTarget(
            name: "CommandLineTests",
            dependencies: [
                "fpx", "ControlAPI", "SeatSharing", "TestSupport", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "EndToEndTests", dependencies: ["Admission", "Licensing", "fpx", "fpx-authority", "fpxd", "TestSupport"],
            exclude: ["KillPoint", "Preload"], swiftSettings: toolSettings),
        .testTarget(
            name: "AuthorityTests",
            dependencies: [
                "AuthorityAPI", "AuthorityServer", "ControlAPI", "fpx-authority", "Licensing", "TestSupport", "WebAPI",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "GRDB", package: "GRDB.swift"), .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "LicenseLifeTests",
            dependencies: [
                "Admission", "AuthorityServer", "LicenseClient", "Licensing", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "LicensingTests",
            dependencies: [
                "Basics", "Licensing", "fpx-authority", "TestSupport", .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "Crypto", package: "swift-crypto"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "LicenseClientTests",
            dependencies: [
                "AuthorityAPI", "ControlAPI", "LicenseClient", "Licensing", "TestSupport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "SeatSharingTests", dependencies: ["SeatSharing", "Simulator", "TestSupport"], swiftSettings: toolSettings),
        .testTarget(
            name: "EtcdTests",
            dependencies: [
                "Etcd", "TestSupport", .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: toolSettings),
        .testTarget(
            name: "SettingsTests", dependencies: ["SeatSharing", "Settings", "TestSupport"], swiftSettings: toolSettings),
    ]
)

// The engine and its tests alone, without any package: quick to build again under a sanitizer.
if Context.environment["FPX_ONLY"] == "engine" {
    let engine: Set = [
        "CAdmission", "CNUMA", "CTestSupport", "Admission", "AdmissionC", "AdmissionNUMA", "AdmissionTests", "TestSupport",
    ]
    package.targets.removeAll { !engine.contains($0.name) }
    package.dependencies = []
}
