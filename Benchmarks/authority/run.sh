#!/usr/bin/env bash
# How many units one authority serves, and how large its database becomes: real TLS on loopback, a real database file.
#
#   run.sh BUILD       BUILD has AuthorityLoad and fpx-authority, release builds. UNITS=10000 RENEWALS=20000 CONNECTIONS=64
#
# The database lies in TMPDIR: on a disk, not in memory, for a rate that means something.
set -euo pipefail
[ $# = 1 ] || { echo "found $# arguments, expected 1: run.sh BUILD" >&2; exit 2; }
for program in "$1"/{AuthorityLoad,fpx-authority}; do
    [ -x "$program" ] || { echo "found no $program, expected what \`make bench-authority\` builds" >&2; exit 1; }
done
exec "$1/AuthorityLoad" --program "$1/fpx-authority" --units "${UNITS:-10000}" --renewals "${RENEWALS:-20000}" \
    --connections "${CONNECTIONS:-64}"
