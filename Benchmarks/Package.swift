// swift-tools-version: 6.1
// Micro-benchmarks of the engine for the package-benchmark plugin: one operation each, with thresholds for regressions.
// The comparison with rivals, threads and processes is the program Bench of the main package.
//
//     swift package --package-path Benchmarks benchmark
//     swift package --package-path Benchmarks --allow-writing-to-package-directory benchmark baseline update before
//     swift package --package-path Benchmarks benchmark baseline check before
import PackageDescription

let package = Package(
    name: "fpx-benchmarks",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(name: "fpx", path: "../"),
        // Without its traits: no jemalloc is needed.
        .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
    ],
    targets: [
        .executableTarget(
            name: "AdmissionBenchmarks",
            dependencies: [
                .product(name: "Admission", package: "fpx"),
                .product(name: "Benchmark", package: "benchmark"),
            ],
            path: "Benchmarks/Admission",
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")])
    ]
)
