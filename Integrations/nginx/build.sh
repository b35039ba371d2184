#!/bin/bash
# Builds the nginx modules for the nginx that Debian installs:
#
#     build.sh OUTDIR        OUTDIR/lib/nginx/ngx_http_fpx_module.so, OUTDIR/lib/nginx/ngx_stream_fpx_module.so
#
# OUTDIR holds libfpxadmission.so already (`make library OUT=OUTDIR`); the modules find it beside themselves or one folder up,
# wherever OUTDIR is moved to. Needs nginx-dev, which must be of nginx' own version.
# CC names another compiler, CFLAGS and LDFLAGS further flags (-fsanitize=address).
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
fail() { echo "build.sh: $*" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
source=/usr/share/nginx/src
[ -e "$1/lib/libfpxadmission.so" ] || fail "found no $1/lib/libfpxadmission.so, expected the library: make library OUT=$1"
out=$(cd "$1" && pwd)
[ -e "$source/conf_flags" ] || fail "found no $source/conf_flags, expected the package nginx-dev: apt-get install nginx-dev"
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || fail "found no nginx, expected the package: apt-get install nginx-core"
version=$("$nginx" -v 2>&1 | sed 's|.*/||; s| .*||')
headers=$(sed -nE 's/^#define NGINX_VERSION +"(.*)"/\1/p' "$source/src/core/nginx.h")
[ "$version" = "$headers" ] || fail "found nginx-dev $headers, expected that of nginx, $version"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Debian's own flags (NGX_CONF_FLAGS): modules load only into an nginx that was configured alike. All that is written lies
# below --builddir.
. "$source/conf_flags"
{
    cd "$source"
    ./configure "${NGX_CONF_FLAGS[@]}" --with-stream=dynamic --builddir="$work" --add-dynamic-module="$here" \
        ${CC:+--with-cc="$CC"} --with-cc-opt="-g -O2 -fPIC -fstack-protector-strong -I$out/include ${CFLAGS:-}" \
        --with-ld-opt="-fPIC -Wl,-z,relro,-z,now,-z,noexecstack -L$out/lib -Wl,-rpath,'\$\$ORIGIN/..:\$\$ORIGIN' ${LDFLAGS:-}"
    make -f "$work/Makefile" "$work/ngx_http_fpx_module.so" "$work/ngx_stream_fpx_module.so"
} >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "nginx' build failed, see above"; }

mkdir -p "$out/lib/nginx"
install -m 644 "$work/ngx_http_fpx_module.so" "$work/ngx_stream_fpx_module.so" "$out/lib/nginx/"
