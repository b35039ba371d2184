#!/bin/bash
# Three units with nginx lend one another seats over an etcd of three members, on loopback and in a folder that goes when it ends:
# fabric.sh BUILD DIST
set -euo pipefail
export LC_ALL=C
build=$1 dist=$2
work=$(mktemp -d /tmp/fpx-fabric.XXXXXX)
chmod 755 "$work"
segments=/dev/shm/$(basename "$work")
units=(FPXROOT01 FPXMEMB02 FPXMEMB03)
own=() clients=()
declare -A port=() fpxd=() etcd=()
cleanup() {
    [ ${#clients[@]} -eq 0 ] || kill "${clients[@]}" 2>/dev/null || true
    [ ${#own[@]} -eq 0 ] || kill "${own[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work" "$segments"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fpx() { local unit=$1; shift; "$build/fpx" --socket "$work/$unit/run/control.sock" "$@"; }
fail() {
    echo "demo: $1; ledger and logs:" >&2
    { fpx FPXROOT01 diagnose test application csfd 140 || true; tail -n 20 "$work"/*.log; } >&2
    exit 1
}
until_true() { # WHAT COMMAND...: polls for a minute
    local what=$1 end=$((SECONDS + 60))
    shift
    while [ $SECONDS -lt $end ]; do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    fail "$what did not come about"
}
after() { # START: how long it took
    awk -v start="$1" -v end="$EPOCHREALTIME" 'BEGIN { printf "  after %.1f s:\n", end - start }'
}
free_port() { # a port that nobody listens on
    local port
    while port=$((20000 + RANDOM % 12000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# One line a unit: serial, stale, and of type furl purchased, used, allocated, reserved; then the total.
ledger() {
    fpx FPXROOT01 diagnose test application csfd 140 | tr -d '/,()' | awk '
        /^dev:/ { serial = substr($2, 1, 9); stale = $4 }
        /^Total/ { serial = "Total" }
        /^furl/ && serial != "Total" { print serial, stale, $2, $3, $4, $5 }
        /^furl/ && serial == "Total" { print serial, "-", $2, $3, $4, "-" }'
}
figure() { ledger | awk -v serial="$1" -v column="$2" '$1 == serial { print $column }'; }
at_least() { [ "$(figure "$1" "$2")" -ge "$3" ]; }
is() { [ "$(figure "$1" "$2")" = "$3" ]; }
show() { # the ledger; no more may be used than was bought
    ledger | awk '
        BEGIN { printf "  %-10s %6s %10s %5s %10s %9s\n", "", "stale", "purchased", "used", "allocated", "reserved" }
        { printf "  %-10s %6s %10s %5s %10s %9s\n", $1, $2, $3, $4, $5, $6 }
        $1 == "Total" && $5 > $3 { bad = 1 }
        END { exit bad }' || fail 'more is allocated than purchased'
}

# A client asks again and again, and reads each answer for a second or two.
client() {
    trap 'exit 0' TERM
    while :; do
        if exec 3<>"/dev/tcp/127.0.0.1/$1"; then
            printf 'GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n' >&3
            cat <&3 >/dev/null &
            wait $! || true
            exec 3>&-
        else
            sleep 0.2
        fi
    done
}
traffic() { # UNIT: all clients go there
    [ ${#clients[@]} -eq 0 ] || kill "${clients[@]}"
    clients=()
    for _ in $(seq 20); do
        client "${port[$1]}" 2>/dev/null &
        clients+=($!)
    done
}

say 'An etcd of three members:'
peers=() members=() cluster='' endpoints=''
for name in e1 e2 e3; do
    peer=http://127.0.0.1:$(free_port) member=http://127.0.0.1:$(free_port)
    peers+=("$peer") members+=("$member")
    cluster+=${cluster:+,}$name=$peer endpoints+=${endpoints:+,}$member
done
for index in 0 1 2; do
    name=e$((index + 1))
    etcd --name $name --data-dir "$work/$name" --listen-client-urls "${members[index]}" \
        --advertise-client-urls "${members[index]}" --listen-peer-urls "${peers[index]}" \
        --initial-advertise-peer-urls "${peers[index]}" --initial-cluster "$cluster" --heartbeat-interval 50 \
        --election-timeout 500 --logger zap --log-level error >>"$work/$name.log" 2>&1 &
    etcd[${members[index]}]=$!
    own+=($!)
done
control() { ETCDCTL_API=3 etcdctl --endpoints "$endpoints" "$@"; }
until_true 'an etcd that answers' control endpoint health
control endpoint status | awk -F', ' '{ print "  " $1, ($5 == "true" ? "leads" : "follows") }'

say 'Three units with ten seats each, a seat for one session; all the operator types on each:'
"$build/fpx-authority" keys new --name demo --out "$work/authority" >/dev/null
start_fpxd() { # UNIT
    "$build/fpxd" --home "$work/$1" --segment "$segments/$1" 2>>"$work/$1.log" &
    fpxd[$1]=$!
    own+=($!)
    until_true "fpxd of $1 answers" fpx "$1" get system status
}
for unit in "${units[@]}"; do
    mkdir -p "$work/$unit/keys"
    cp "$work/authority/demo.pem" "$work/$unit/keys"
    start_fpxd "$unit"
    # The key that the unit has made: a licence that names it can be shared.
    key=$(fpx "$unit" show license_hardware_data | sed -n 's/.*"unit_key" *: *"\([^"]*\)".*/\1/p')
    "$build/fpx-authority" license sign --key "$work/authority/demo.key" --customer demo --id "$unit" --seats 10 \
        --model-max 100 --sessions-per-seat 1 --unit-key "$key" --out "$work/$unit/license.lic" >/dev/null
    fpx "$unit" commit >/dev/null
done
for unit in "${units[@]}"; do
    role=member
    [ "$unit" != FPXROOT01 ] || role=root
    set -- config system sharing set endpoints "$endpoints" set term 10 end
    [ "$unit" != FPXROOT01 ] || echo "  fpx $*"
    fpx "$unit" "$@" >/dev/null
    set -- config system csf set status enable set group-name demo set role $role end
    echo "  fpx $*"
    fpx "$unit" "$@" >/dev/null
done
until_true 'three units in the pool' is Total 3 30

nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
user=$([ "$(id -u)" != 0 ] || echo 'user root;')
backend=$(free_port)
head -c 1500 /dev/zero | tr '\0' x >"$work/index.html"
temporary="client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;"
cat >"$work/backend.conf" <<END
$user daemon off; pid $work/backend.pid; error_log $work/backend.log warn; events {}
http {
    access_log off; $temporary
    server { listen 127.0.0.1:$backend; root $work; limit_rate 1k; }
}
END
for unit in "${units[@]}"; do
    port[$unit]=$(free_port)
    cat >"$work/$unit.conf" <<END
load_module $dist/lib/nginx/ngx_http_fpx_module.so;
$user daemon off; pid $work/$unit.pid; error_log $work/$unit.nginx.log warn; worker_processes 1; events {}
http {
    access_log off; $temporary
    fpx_segment $segments/$unit;
    server { listen 127.0.0.1:${port[$unit]}; fpx on; location / { proxy_pass http://127.0.0.1:$backend; proxy_buffering off; } }
}
END
done
for name in backend "${units[@]}"; do
    "$nginx" -c "$work/$name.conf" -e "$work/$name.nginx.log" 2>>"$work/$name.nginx.log" &
    own+=($!)
done
for waiting in "$backend" "${port[@]}"; do until_true "port $waiting" bash -c "exec 3<>/dev/tcp/127.0.0.1/$waiting"; done

say 'No traffic yet. The ledger on the root: each unit has what it bought.'
show

say 'Twenty clients at FPXMEMB02, which bought ten seats: the others lend it theirs.'
start=$EPOCHREALTIME
traffic FPXMEMB02
until_true 'twenty in use at FPXMEMB02' is FPXMEMB02 4 20
after "$start"
show

say 'They move to FPXMEMB03, and the seats go with them.'
start=$EPOCHREALTIME
traffic FPXMEMB03
until_true 'twenty in use at FPXMEMB03' is FPXMEMB03 4 20
after "$start"
show

say 'fpxd of FPXMEMB03 is killed (-9). nginx goes on with it, but what was borrowed ends by time, and its owners have it again.'
start=$EPOCHREALTIME
kill -KILL "${fpxd[FPXMEMB03]}"
wait "${fpxd[FPXMEMB03]}" 2>/dev/null || true
until_true 'FPXMEMB03 stale' is FPXMEMB03 2 y
until_true 'nothing lent to FPXMEMB03' is FPXMEMB03 6 10
after "$start"
show

say 'It is started again: it borrows at once, and after one term it knows that nothing of its own is lent.'
start=$EPOCHREALTIME
start_fpxd FPXMEMB03
until_true 'FPXMEMB03 is back' is FPXMEMB03 2 n
until_true 'twenty seats at FPXMEMB03' at_least FPXMEMB03 5 20
until_true 'twenty in use at FPXMEMB03' is FPXMEMB03 4 20
after "$start"
show

say 'The leader of etcd is killed (-9): nobody notices.'
leader=$(control endpoint status 2>/dev/null | awk -F', ' '$5 == "true" { print $1; exit }')
kill -KILL "${etcd[$leader]}"
wait "${etcd[$leader]}" 2>/dev/null || true
for _ in $(seq 13); do # longer than a term
    at_least FPXMEMB03 5 20 || fail 'FPXMEMB03 has lost seats'
    [ "$(fpx FPXMEMB03 get system csf | awk '$1 == "connection" { print $NF }')" = connected ] || lost=1
    sleep 0.9
done
[ -z "${lost:-}" ] || fail 'a unit has lost contact'
show
fpx FPXMEMB03 diagnose test application csfd 1 | sed -n 's/^Endpoint/  Endpoint/p'

say 'What FPXMEMB03 has noted:'
fpx FPXMEMB03 get system events | grep -E 'Borrowed|contact|back, or known' | tail -n 8
