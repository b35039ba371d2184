#!/bin/sh
# Builds libfpxadmission.so, the C face of the engine, and installs it with its header and its pkg-config file:
#
#     build-library.sh OUTDIR        OUTDIR/lib, OUTDIR/include, OUTDIR/lib/pkgconfig
#
# The engine is compiled as Embedded Swift: no Swift runtime library, no metadata, no start-up code. The result needs libc
# alone, starts no thread, has no lazily initialised global (they go by swift_once, which Embedded Swift brings along itself),
# and exports what the header declares. The end of this script checks all of that.
# SWIFTC and CC name other compilers; WORK a folder to keep the intermediate files in. DEBUG=1 builds the debug library: it aborts
# when a process releases more sessions than it has (see "Releases" in the header), and is slow.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
include=$root/Sources/CAdmission/include
header=$include/fpxadmission.h
version=$(sed -nE 's/^#define FPX_VERSION_[A-Z]+ ([0-9]+)$/\1/p' "$header" | paste -sd.)
soname=libfpxadmission.so.${version%%.*}

[ $# -eq 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
swiftc=${SWIFTC:-swiftc}
cc=${CC:-cc}
mkdir -p "$1/lib/pkgconfig" "$1/include"
out=$(cd "$1" && pwd)
if [ -n "${WORK:-}" ]; then
    mkdir -p "$WORK"
    work=$(cd "$WORK" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
case ${DEBUG:-0} in 0) debug= ;; *) debug="-D FPX_DEBUG" ;; esac
fail() { echo "build-library.sh: $*" >&2; exit 1; }

# What the header declares and does not define: the functions to export.
"$cc" -E -P -x c "$header" | grep -v '^static' | sed -nE 's/^[A-Za-z_][A-Za-z_ ]* \**(fpx_[a-z_]+)\(.*\);$/\1/p' |
    LC_ALL=C sort >"$work/declared"
[ -s "$work/declared" ] || fail "found no declaration in $header"
{
    echo "FPXADMISSION_${version%%.*} { global:"
    sed 's/$/;/' "$work/declared"
    echo "local: *; };"
} >"$work/exports.map"

echo "module CAdmission { umbrella header \"$include/CAdmission.h\" export * }" >"$work/module.modulemap"

# Each module as a whole. An embedded module carries all its code, so that AdmissionC.o holds what it uses of the engine. No
# stack protector, as in the ordinary build: it costs a tenth of an out-of-line pair, and no buffer here takes foreign input.
compile() {
    "$swiftc" $debug -enable-experimental-feature Embedded -wmo -O -parse-as-library -swift-version 6 -strict-memory-safety \
        -warnings-as-errors -package-name fpx -Xfrontend -disable-stack-protector -Xfrontend -function-sections \
        -Xcc -fPIC -Xcc "-fmodule-map-file=$work/module.modulemap" -I "$work" "$@"
}
compile -module-name Admission -emit-module -emit-module-path "$work/Admission.swiftmodule" "$root"/Sources/Admission/*.swift
compile -module-name AdmissionC -c -o "$work/AdmissionC.o" "$root"/Sources/AdmissionC/*.swift
"$cc" -O2 -fPIC -ffunction-sections -Wall -Wextra -Werror -I "$include" \
    -c -o "$work/CAdmission.o" "$root/Sources/CAdmission/CAdmission.c"

# nodelete: an attachment, its fork handler and its lanes last as long as the process, whoever calls dlclose.
"$cc" -shared -o "$work/$soname" "$work/AdmissionC.o" "$work/CAdmission.o" -Wl,-soname,"$soname" \
    -Wl,--version-script="$work/exports.map" -Wl,--gc-sections -Wl,--as-needed -Wl,-z,defs -Wl,-z,relro -Wl,-z,now \
    -Wl,-z,nodelete -Wl,-z,noexecstack

# It is what it is said to be.
nm -D --defined-only "$work/$soname" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$work/exported"
diff -u "$work/declared" "$work/exported" >&2 || fail "found other exported functions (+) than the header declares (-)"
needed=$(readelf -dW "$work/$soname" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
for library in $needed; do
    case $library in
        libc.so.6 | ld-linux-*.so.*) ;;
        *) fail "found that $soname needs $library, expected libc alone" ;;
    esac
done
nm "$work/$soname" >"$work/symbols"
if grep -E 'swift_once$|pthread_create|\$.*W[zZ]$' "$work/symbols" >&2; then
    fail "found a lazily initialised global or a thread, expected none"
fi

install -m 755 "$work/$soname" "$out/lib/libfpxadmission.so.$version"
ln -sf "libfpxadmission.so.$version" "$out/lib/$soname"
ln -sf "$soname" "$out/lib/libfpxadmission.so"
install -m 644 "$header" "$out/include/fpxadmission.h"
sed "s/@VERSION@/$version/" "$here/fpxadmission.pc.in" >"$out/lib/pkgconfig/fpxadmission.pc"
