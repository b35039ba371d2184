#!/bin/bash
# Checks on an emulated machine with two memory nodes that shards lie on their CPU's node, and that the counts stay exact when
# CPUs go off line: Tests/NUMA/run.sh [CHECK-PROGRAM]      (without one it builds NUMACheck)
# The last line is "NUMA: N passed, 0 failed". Half a minute on 2 idle cores, without KVM. Works in .build/numa; installs the
# emulator and downloads (but does not install) Debian's kernel.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/.build/numa
log=$work/console.log
mkdir -p "$work"

missing=
for pair in qemu-system-x86_64:qemu-system-x86 cpio:cpio gcc:gcc; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
kernel=$(find "$work" -maxdepth 3 -path '*/boot/vmlinuz-*' | sort -V | tail -1)
if [ -n "$missing" ] || [ -z "$kernel" ]; then
    if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    [ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    rm -rf "$work/kernel" "$work"/*.deb
    (cd "$work" && apt-get download -qq "$package" 2>/dev/null)
    dpkg -x "$work"/*.deb "$work/kernel"
    rm -f "$work"/*.deb
    kernel=$(find "$work/kernel/boot" -name 'vmlinuz-*')
fi

if [ $# -gt 0 ]; then
    check=$1
else
    (cd "$root" && ${SWIFT:-swift} build -c release --product NUMACheck)
    check=$root/.build/release/NUMACheck
fi

# What the machine has: the first process, the check, and the libraries that it is linked with, at their own paths.
image=$work/image
rm -rf "$image"
mkdir -p "$image"/{dev,proc,sys}
gcc -O1 -Wall -Werror -static -o "$image/init" "$here/init.c"
cp "$check" "$image/check"
ldd "$check" | sed -nE 's/.*(=> |^[[:space:]])(\/[^ ]+) .*/\2/p' | while read -r library; do
    mkdir -p "$image$(dirname "$library")"
    cp -L "$library" "$image$library"
done
(cd "$image" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/image.gz"

# Two nodes of 384 MB and two CPUs each. `-cpu max`: all that the emulator can do, cmpxchg16b among it. no_timer_check: on a
# busy host the kernel may find the emulated timer too slow, and give up.
timeout --foreground -k 5 "${LIMIT:-600}" qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max -smp 4,sockets=2,cores=2 -m 768 \
    -object memory-backend-ram,id=m0,size=384M -object memory-backend-ram,id=m1,size=384M \
    -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 \
    -kernel "$kernel" -initrd "$work/image.gz" -append 'console=ttyS0 quiet panic=-1 no_timer_check' \
    -nodefaults -no-reboot -display none -serial stdio </dev/null 2>&1 | tr -d '\r' | tee "$log" || true

result=$(grep -aE '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -1 || true)
if ! grep -aqx 'check ended with status 0' "$log" || grep -aq '^FAILED' "$log"; then
    echo "NUMA: FAILED: ${result:-the machine did not finish}; its console is in $log"
    exit 1
fi
grep -aqx 'ok      two memory nodes with CPUs are seen' "$log" || { echo "NUMA: FAILED: found no two memory nodes"; exit 1; }
echo "NUMA: $result"
