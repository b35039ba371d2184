#!/bin/bash
# fpxd on its defaults in a folder below the repository, a first look at it, and then it runs until Ctrl-C: run.sh BUILD DIST
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$1 dist=$2
home=$root/.fpx
socket=$home/run/control.sock

"$build/fpxd" --home "$home" 2>"${TMPDIR:-/tmp}/fpxd.$$" &
daemon=$!
trap 'rm -f "${TMPDIR:-/tmp}/fpxd.$$"; kill $daemon 2>/dev/null || true; wait $daemon 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM
until "$build/fpx" --socket "$socket" get system status >/dev/null 2>&1; do
    kill -0 $daemon 2>/dev/null || { cat "${TMPDIR:-/tmp}/fpxd.$$" >&2; exit 1; }
    sleep 0.1
done

show() {
    printf '\n$ fpx %s\n' "$*"
    "$build/fpx" --socket "$socket" "$@"
}
show get system status
show diagnose wad license detail
segment=$("$build/fpx" --socket "$socket" get system status | sed -n 's/^Segment: //p')
printf '\n$ example %s          # Integrations/c/example.c, a worker in C\n' "$segment"
cc -O2 -pthread "$root/Integrations/c/example.c" -o "$home/example" -I "$dist/include" -L "$dist/lib" -lfpxadmission \
    -Wl,-rpath,"$dist/lib"
"$home/example" "$segment"

cat <<END

fpxd runs until Ctrl-C. It logs to .fpx/fpxd.log. Type in another terminal, in this folder:
    export PATH=\$PWD/${build#"$root"/}:\$PATH
    fpx                                        the shell: ? for help, Tab completes
    fpx config system global set license-overlimit block end
    curl --unix-socket .fpx/run/control.sock http://fpx/v1/seats
    make demo                                  nginx and HAProxy under one licence of 3 sessions
    make demo-fabric                           three units that lend one another seats over etcd
    make integrations                          the nginx modules; see docs/operations/nginx.md and haproxy.md
    make bench                                 what an admission costs on this machine
    make test                                  all tests
END
wait $daemon
