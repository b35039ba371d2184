/// What this build is.
public enum Version {
    public static let number = "0.2.0"
    /// Counts released builds.
    public static let build = "0002"
    /// YYMMDD
    public static let date = "261121"
    public static let tag = "GA"
    /// `fpxd v0.2.0,build0002,261121 (GA)`
    public static let line = "fpxd v\(number),build\(build),\(date) (\(tag))"
}
