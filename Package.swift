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
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // Floor 0: what Swift cannot say.
        .target(name: "CAdmission"),
        .systemLibrary(name: "CNUMA", pkgConfig: "numa", providers: [.apt(["libnuma-dev"])]),
        .target(name: "CRivals"),
        // Floor 1: the engine, and its C face.
        .target(name: "Admission", dependencies: ["CAdmission"], swiftSettings: settings),
        .target(name: "AdmissionC", dependencies: ["Admission", "CAdmission"], swiftSettings: settings),
        .target(name: "AdmissionNUMA", dependencies: ["Admission", "CNUMA"], swiftSettings: settings),
        // Programs.
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
        .testTarget(
            name: "AdmissionTests", dependencies: ["Admission", "AdmissionC", "AdmissionNUMA", "CAdmission"],
            exclude: ["Golden"], swiftSettings: toolSettings),
    ]
)
