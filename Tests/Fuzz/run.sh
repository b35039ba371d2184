#!/bin/bash
# Coverage-guided fuzzing of what reads the bytes of others, under the address sanitizer: run.sh [SECONDS] [TARGET]
# Each target runs for SECONDS (5) from its corpus, Tests/Fuzz/corpus/TARGET, and checks what it reads besides waiting for a
# crash; an input that takes 5 seconds is a finding too. The last line is "FUZZ: N targets, M executions, 0 findings". A finding is
# kept in .build/fuzz/findings, and ends the run of its target. Each core runs one. KEEP=1 puts the smallest set of inputs that
# covers as much in the place of the corpus.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-5}
chosen=${2:-}
out=.build/fuzz
swiftc=$(dirname "$(readlink -f "$(command -v "${SWIFT:-swift}")")")/swiftc

# Each target, the module that it is built with, and the bytes of its longest input.
targets="spop SPOE 4096
endlines SPOE 1024
token Licensing 16384
claims Licensing 8192
machine Licensing 2048
file Licensing 2048
line CommandLine 1024
answer CommandLine 8192
journal KeyedSessions 1057
row SeatSharing 16384
etcd Etcd 16384"

[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || { echo "SECONDS: found \"$seconds\", expected a number from 1 to 999999" >&2; exit 2; }
if [ -n "$chosen" ]; then
    found=$(awk -v name="$chosen" '$1 == name' <<<"$targets")
    [ -n "$found" ] || { echo "TARGET: found \"$chosen\", expected one of:" $(cut -d' ' -f1 <<<"$targets") >&2; exit 2; }
    targets=$found
fi

# -O as in the product: what traps there traps here. lld: the gold linker warns of each symbol of the sanitizer.
compile() {
    "$swiftc" -O -gline-tables-only -wmo -swift-version 6 -warnings-as-errors -package-name fpx -sanitize=fuzzer,address \
        -parse-as-library "$@"
}

library() { # MODULE
    compile -module-name "$1" -emit-module-path "$out/$1.swiftmodule" -I $out -c Sources/"$1"/*.swift -o "$out/$1.o"
}

# A program of the sources that read, without those that need packages.
build() { # MODULE
    local sources
    case $1 in
    SPOE) sources="Sources/SPOE/SPOPReader.swift Sources/SPOE/SPOPFrame.swift Sources/SPOE/SPOPConnection.swift
        Sources/SPOE/EndLines.swift" ;;
    Licensing)
        sources="$(grep -LE '^import (JWTKit|Crypto)|TrustedKeys|^extension LicenseKeeper' Sources/Licensing/*.swift) $out/Basics.o -I $out" ;;
    CommandLine)
        library SeatSharing
        library ControlAPI
        sources="$(grep -LE '^import (NIO|ArgumentParser|CLineEditor)|ControlClient' Sources/fpx/*.swift)
            $out/Basics.o $out/SeatSharing.o $out/ControlAPI.o -I $out" ;;
    SeatSharing) sources="Sources/SeatSharing/*.swift" ;;
    Etcd) sources=$(grep -LE '^import (NIO|AsyncHTTPClient)|EtcdClient' Sources/Etcd/*.swift) ;;
    KeyedSessions)
        local include="-I $out -I Sources/CAdmission/include -I Sources/CKeyedTable/include"
        cat >$out/module.modulemap <<MAP
module CAdmission { header "$PWD/Sources/CAdmission/include/CAdmission.h" export * }
module CKeyedTable { header "$PWD/Sources/CKeyedTable/include/fpx_keyed.h" export * }
MAP
        local file objects=
        for file in Sources/CAdmission/*.c Sources/CKeyedTable/*.c; do
            # shellcheck disable=SC2086
            "$(dirname "$swiftc")/clang" -O2 -g -fsanitize=fuzzer-no-link,address $include -c -o "$out/$(basename "$file" .c).c.o" "$file"
            objects+=" $out/$(basename "$file" .c).c.o"
        done
        # shellcheck disable=SC2086
        compile -module-name Admission -emit-module-path $out/Admission.swiftmodule $include \
            -c Sources/Admission/*.swift -o $out/Admission.o
        sources="Sources/KeyedSessions/*.swift $out/Admission.o $objects $include -lurcu-bp -lurcu-cds -lurcu-common" ;;
    esac
    # shellcheck disable=SC2086
    compile -use-ld=lld -module-name "Fuzz$1" $sources Tests/Fuzz/*.swift Tests/Fuzz/"$1"/*.swift \
        -o "$out/$1"
}

mkdir -p $out/findings
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
results=$TMPDIR/results
touch "$results"

# Waits for a free core; what fails in the background ends this, too.
cores=$(nproc)
free_core() { while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n; done; }
all_done() { while [ -n "$(jobs -p)" ]; do wait -n; done; }

library Basics # which several of them use
for module in $(cut -d' ' -f2 <<<"$targets" | uniq); do
    free_core
    build "$module" &
done
all_done

# Swift's own report of a crash would stand before libFuzzer's, which says where the input is.
export SWIFT_BACKTRACE=enable=no

# Runs a target, prints its line, and adds its executions, or `finding`, to the results.
fuzz() { # TARGET MODULE LENGTH
    local target=$1 module=$2 length=$3 status=0 input done coverage
    local corpus=Tests/Fuzz/corpus/$target new=$out/new/$target log=$out/$target.log
    local seeds=$corpus
    [ "$target" != spop ] || seeds="$corpus Tests/SPOETests/Corpus"
    mkdir -p "$new"
    # A program does the target that it is named after.
    ln -sf "$module" "$out/$target"
    # shellcheck disable=SC2086
    "$out/$target" -max_total_time="$seconds" -max_len="$length" -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/findings/$target-" "$new" $seeds >"$log" 2>&1 || status=$?
    if [ $status != 0 ]; then
        echo finding >>"$results"
        grep -aE 'Fatal error|ERROR:' "$log" | head -2 || tail -5 "$log"
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
        echo "$target: FOUND a fault; its log is $log${input:+; again: $out/$target $input}"
        return
    fi
    done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -nE 's/^#[0-9]+\s+DONE +cov: ([0-9]+).*/\1/p' "$log")
    [ -n "$done" ] && [ -n "$coverage" ] || { echo "$target: found no figures in $log" >&2; exit 1; }
    if [ "${KEEP:-0}" = 1 ]; then
        rm -rf "$out/merged/$target" && mkdir -p "$out/merged/$target"
        "$out/$target" -set_cover_merge=1 -use_counters=0 -max_len="$length" "$out/merged/$target" "$new" "$corpus" >>"$log" 2>&1
        rm -rf "$corpus" && cp -r "$out/merged/$target" "$corpus"
    fi
    echo "$target: $done executions, $coverage places covered, $(find "$corpus" -type f | wc -l) inputs in the corpus"
    echo "$done" >>"$results"
}

while read -r target module length; do
    free_core
    fuzz "$target" "$module" "$length" &
done <<<"$targets"
all_done
awk '$1 == "finding" { findings++; next } { count++; executions += $1 }
    END { printf "FUZZ: %d targets, %d executions, %d findings\n", count + findings, executions, findings; exit findings > 0 }' \
    "$results"
