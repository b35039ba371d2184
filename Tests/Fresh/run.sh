#!/bin/bash
# What a newcomer does, on a fresh Debian 12: `make run`, then the README's quick starts, word for word: run.sh
# Makes the system with debootstrap in .build/fresh and uses the Swift toolchain of this host, read-only. As root; 15 minutes or
# more. The last line is "FRESH: passed". MIRROR names another mirror of Debian, BIND further folders that the build needs.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
root=$here/.build/fresh
tools=$(dirname "$(dirname "$(readlink -f "$(command -v swift)")")")
[ "$(id -u)" = 0 ] || { echo "found user $(id -un), expected root: it makes a chroot" >&2; exit 2; }
"$here/.ci/packages" debootstrap

if [ ! -e "$root/.made" ]; then
    rm -rf "$root"
    # What Swift's own list of requirements names, as in its images for Debian 12.
    debootstrap --variant=minbase --include=ca-certificates,git,make,binutils,gcc,g++,libc6-dev,libcurl4,libedit2,libpython3-dev,libsqlite3-0,libxml2,libncurses-dev,libz3-dev,libstdc++-12-dev,tzdata,zlib1g-dev,pkg-config,procps \
        bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" >/dev/null
    touch "$root/.made"
fi
for file in /etc/gitconfig /root/.gitconfig /etc/resolv.conf /etc/hosts; do [ ! -e $file ] || cp $file "$root$file"; done

mounts=()
bind() { # SOURCE [OPTIONS]
    mkdir -p "$root$1"
    mount --bind ${2:-} "$1" "$root$1"
    mounts+=("$root$1")
}
enter() { chroot "$root" /usr/bin/env -i HOME=/root PATH="$tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" LANG=C.UTF-8 bash -c "$1"; }
cleanup() {
    # Everything that still runs in the chroot, and nothing else.
    for link in /proc/[0-9]*/root; do
        [ "$(readlink "$link" 2>/dev/null)" != "$root" ] || kill -KILL "$(basename "$(dirname "$link")")" 2>/dev/null || true
    done
    sleep 0.5
    for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do umount -l "${mounts[i]}"; done
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mount -t proc proc "$root/proc" && mounts+=("$root/proc")
bind /dev
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" && mounts+=("$root/dev/shm")
for folder in "$tools" ${BIND:-}; do bind "$folder" -r; done

rm -rf "$root/root/fpx"
git clone -q "$here" "$root/root/fpx"

echo '--- make run'
enter 'cd /root/fpx && exec make run' >"$root/run.log" 2>&1 &
first=$!
until grep -q '^    make test' "$root/run.log"; do
    kill -0 $first 2>/dev/null || { tail -40 "$root/run.log" >&2; exit 1; }
    sleep 1
done
sed -n '/^\$ fpx get system status/,$p' "$root/run.log"
for expected in 'License: Evaluation, seat 4, active seat 4' 'Max Licensed Session: 100' 'the cap is exact: 100 sessions inspect' '^ok$'; do
    grep -qE "$expected" "$root/run.log" || { echo "make run: found no \"$expected\"" >&2; exit 1; }
done
enter 'kill $(cat /root/fpx/.fpx/run/fpxd.pid)'
wait $first || true

# The shell blocks of the README after the first one (which is make run and make test), those of the chapters on installing, nginx
# and HAProxy; the block of outputs between them is what `license detail` must print.
blocks=$(awk '/^## /{ on = /^## (Install|nginx|HAProxy)/ } on && /^```sh/ { code = 1; next } /^```/ { code = 0 } code' "$here/README.md")
echo '--- the README, word for word'
printf '%s\n' 'cd /root/fpx' "$blocks" 'curl -s http://127.0.0.1:8080/' 'fpx diagnose wad license detail' >"$root/root/readme.sh"
# Into a file: what it starts in the background would hold a pipe open.
enter 'exec bash -e /root/readme.sh' >"$root/readme.log" 2>&1 || { tail -40 "$root/readme.log" >&2; exit 1; }
grep -vE '^(Selecting|Preparing|Unpacking|Setting up|\(Reading|Get:|\[[0-9]+/)' "$root/readme.log"
for expected in 'License: Evaluation' 'License state: Active' 'Max Licensed Session: 1000' '^inspected$'; do
    grep -qE "$expected" "$root/readme.log" || { echo "README: found no \"$expected\"" >&2; exit 1; }
done
# HAProxy asks, and is answered.
enter 'exec 3<>/dev/tcp/127.0.0.1/7003; sleep 1; fpx diagnose wad session list' >"$root/haproxy.log"
cat "$root/haproxy.log"
grep -q 'haproxy *furl *inspect' "$root/haproxy.log" || { echo 'HAProxy: found no inspected session' >&2; exit 1; }
echo 'FRESH: passed'
