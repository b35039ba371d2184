#!/usr/bin/env bash
# What the hooks cost nginx and HAProxy, in CPU time, beside the same proxy without them and beside its own limiter.
#
#   run.sh BUILD DIST       BUILD has fpxd, fpx and fpx-authority; DIST has lib/nginx. QUICK=1: under a minute, noisier.
#
# Prints a table in Markdown; each sample is a line of DIST/bench-hooks.json. See docs/hooks-cost.md.
set -euo pipefail
[ $# = 2 ] || { echo "found $# arguments, expected 2: run.sh BUILD DIST" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$1 dist=$2
json=$dist/bench-hooks.json

rounds=7 seconds=0.8
[ -z "${QUICK:-}" ] || rounds=3 seconds=0.2
connections=32  # what wrk keeps open
limit=200       # of the proxies' own limiters: never reached by wrk, so that nothing is refused while it is measured

fail() {
    echo "bench-hooks: $*" >&2
    [ -z "${folder:-}" ] || tail -n 5 "$folder"/*.out "$folder"/error.log 2>/dev/null >&2 || true
    exit 1
}

"$root/.ci/packages" wrk nginx-core libnginx-mod-stream haproxy
for file in "$build"/{fpxd,fpx,fpx-authority} "$dist"/lib/nginx/ngx_{http,stream}_fpx_module.so; do
    [ -e "$file" ] || fail "found no $file, expected what \`make daemon integrations\` builds"
done
[ -r /proc/self/task/$$/schedstat ] || fail "found no /proc/PID/task/TID/schedstat, expected a kernel that keeps it"

folder=$(mktemp -d "${TMPDIR:-/tmp}/fpx-bench.XXXXXX")
segments=/dev/shm/$(basename "$folder")
declare -A daemon=()  # process ids of fpxd by cap: wide, full
proxy='' backend='' load=''

stop() { # PID...: ends processes and waits until they have ended
    kill "$@" 2>/dev/null || true
    wait "$@" 2>/dev/null || true
}
trap 'stop $load $proxy $backend ${daemon[*]}; rm -rf "$folder" "$segments".*' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

eventually() { # WHAT COMMAND...: until it succeeds
    local what=$1 deadline=$((SECONDS + 10))
    shift
    until "$@" 2>/dev/null; do
        ((SECONDS < deadline)) || fail "waited 10 s for $what in vain"
        sleep 0.02
    done
}

free_port() { # below the ports that the kernel gives to clients; never the same twice
    while :; do
        port=$((20000 + RANDOM % 12000))
        [[ " ${ports:-} " == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    ports="${ports:-} $port"
}

# --- fpxd: one with room for all, one whose single session somebody else has --------------------------------------------------

fpx() { "$build/fpx" --socket "$folder/$cap/run/control.sock" "$@"; }

start_daemon() { # CAP SEATS SESSIONS_PER_SEAT
    cap=$1
    mkdir -p "$folder/$cap/keys"
    [ -e "$folder/bench.key" ] || "$build/fpx-authority" keys new --name bench --out "$folder" >"$folder/authority.out"
    cp "$folder/bench.pem" "$folder/$cap/keys"
    "$build/fpx-authority" license sign --key "$folder/bench.key" --customer bench --seats "$2" --sessions-per-seat "$3" \
        --out "$folder/$cap/license.lic" >"$folder/authority.out"
    "$build/fpxd" --home "$folder/$cap" --segment "$segments.$cap" >"$folder/fpxd.$cap.out" 2>&1 &
    daemon[$cap]=$!
    eventually "fpxd" fpx get system status >"$folder/status"
    grep -q '^License: Active' "$folder/status" || fail "found $(sed -n 2p "$folder/status"), expected an active licence"
}

sessions() { # licensed sessions and bypassed ones that there are now
    fpx diagnose wad license | awk '/^Lic type furl:/ { ours = 1 } /^Lic type fnbi:/ { ours = 0 }
        ours && /Current Licensed Sessions:/ { now = $NF } /^Bypassed now:/ { print now, $4 + 0 }'
}

verdicts() { # how often the proxy's hook has been told inspect, and how often bypass, since the proxy (HAProxy: fpxd) started
    fpx diagnose wad session stats | awk -v proxy="$proxy_name" '
        proxy == "haproxy" && $1 == proxy && $2 == "admitted" { inspect = $3 }
        proxy == "haproxy" && $1 == proxy && $2 == "bypassed" { bypass = $3 }
        proxy == "nginx" && $3 == proxy && $5 == "furl" { inspect += $9; bypass += $10 }
        END { print inspect + 0, bypass + 0 }'
}

are() { [ "$("$1")" = "$2" ]; } # FUNCTION TEXT

# --- Proxies ------------------------------------------------------------------------------------------------------------------

nginx_start() { # NAME: with $folder/NAME.conf
    nginx -p "$folder" -e "$folder/error.log" -c "$folder/$1.conf" >"$folder/$1.out" 2>&1 &
}

nginx_head() { # NAME
    echo "daemon off; user $(id -un) $(id -gn); worker_processes 1; pid $folder/$1.pid; error_log $folder/error.log warn;"
    echo "events { worker_connections 1000; }"
}

nginx_http='access_log off; keepalive_requests 1000000000; client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;'

# Two servers that name themselves. A request for /hold waits for its body here, if no proxy waits for it before.
start_backend() {
    free_port && inspect=$port
    free_port && bypass=$port
    {
        nginx_head backend
        echo "http { $nginx_http"
        for name in inspect bypass; do
            echo "server { listen 127.0.0.1:${!name}; location / { return 200 '$name'; }"
            echo "location /hold { proxy_pass http://127.0.0.1:9; } }"
        done
        echo "}"
    } >"$folder/backend.conf"
    nginx_start backend
    backend=$!
    port=$inspect
    eventually "the back end" answers inspect
}

nginx_configuration() {
    local zone='' admit='' verdict=inspect pass='proxy_pass ' keep='' location='' end=''
    case $variant in
    limiter) zone="limit_conn_zone \$binary_remote_addr zone=clients:1m;" admit="limit_conn clients $limit;" ;;
    fpx*) zone="fpx_segment $segments.$cap;" admit="fpx on;" verdict="\$fpx_verdict" ;;
    esac
    [ "$mode" = http ] || echo "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
    [[ $variant != fpx* ]] || echo "load_module $(realpath "$dist")/lib/nginx/ngx_${mode}_fpx_module.so;"
    nginx_head proxy
    if [ "$mode" = http ]; then
        zone="$nginx_http $zone" keep="keepalive $connections;" end='}' pass='proxy_pass http://'
        location="location / { proxy_http_version 1.1; proxy_set_header Connection ''; "
    fi
    echo "$mode { $zone
        upstream inspect { server 127.0.0.1:$inspect; $keep }
        upstream bypass { server 127.0.0.1:$bypass; $keep }
        server { listen 127.0.0.1:$port; $admit $location $pass$verdict; $end }
    }"
}

haproxy_configuration() {
    local names='' rules='default_backend inspect' tail=''
    case $mode.$variant in
    tcp.limiter) rules="tcp-request connection track-sc0 src table clients
        tcp-request connection reject if { sc0_conn_cur gt $limit }
        default_backend inspect" ;;
    http.limiter) rules="http-request track-sc0 src table clients
        http-request deny deny_status 503 if { sc0_conn_cur gt $limit }
        default_backend inspect" ;;
    *.fpx*)
        names='unique-id-format %pid:%rt:%ci:%cp:%Ts
        log ring@fpxend format raw local0
        log-format "END %ID %ts %[var(txn.fpx.verdict)] %U %B"'
        rules="filter spoe engine fpx config $root/Integrations/haproxy/spoe.conf
        use_backend inspect if { var(txn.fpx.verdict) -m str inspect }
        default_backend bypass"
        # The agent and the ring as they are shipped.
        tail=$(<"$root/Integrations/haproxy/fpx.cfg")
        tail=${tail//@\/fpx\//@$folder\/$cap\/run\/} ;;
    esac
    echo "
    global
        nbthread 1
    defaults
        mode $mode
        timeout connect 5s
        timeout client 50s
        timeout server 50s
        option abortonclose
        http-reuse always
        $names
    frontend in
        bind 127.0.0.1:$port
        $rules
    backend inspect
        server s 127.0.0.1:$inspect
    backend bypass
        server s 127.0.0.1:$bypass
    backend clients
        stick-table type ip size 10k expire 1m store conn_cur
$tail"
}

start_proxy() {
    "${proxy_name}_configuration" >"$folder/proxy.conf"
    case $proxy_name in
    nginx) nginx_start proxy ;;
    haproxy) haproxy -db -f "$folder/proxy.conf" >"$folder/proxy.out" 2>&1 & ;;
    esac
    proxy=$!
}

# --- Clients ------------------------------------------------------------------------------------------------------------------

hold=$'POST /hold HTTP/1.1\r\nHost: bench\r\nContent-Length: 1\r\n\r\n'

answers() { # WORD: whether the back end of that name answers a request to $port
    (
        exec 3<>"/dev/tcp/127.0.0.1/$port"
        printf 'GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' >&3
        timeout 2 cat <&3
    ) 2>/dev/null | grep -q "^$1\$"
}

take_the_session() { # of the daemon with one; kept open on descriptor $held
    exec {held}<>"/dev/tcp/127.0.0.1/$port"
    printf %s "$hold" >&"$held"
    sleep 0.05
    are sessions "1 0" || { exec {held}>&-; return 1; }
}

limiter_refuses() { # whether so many requests as the limit wait, and one of the next is refused
    (
        trap '' PIPE
        for ((i = 0; i < limit + 5; i++)); do
            exec {next}<>"/dev/tcp/127.0.0.1/$port"
            printf %s "$hold" >&"$next" || true
            ((i >= limit)) || continue
            line='' status=0
            read -r -t 0.5 line <&"$next" || status=$?  # above 128: it waits
            [[ $status -gt 128 || (-n $line && $line != *" 503 "*) ]] || exit 0
        done
        exit 1
    ) 2>/dev/null
}

# --- One sample ---------------------------------------------------------------------------------------------------------------

cpu_time() { # PID...: nanoseconds on a CPU of each thread
    local pid file ns rest
    for pid; do
        for file in /proc/"$pid"/task/*/schedstat; do
            { read -r ns rest <"$file"; } 2>/dev/null || continue  # it has just ended
            echo "$file $ns"
        done
    done
}

check() { # REQUESTS: that the variant did what it is named for
    # Some were under way when wrk ended, and it opens a connection before it begins, to see whether it can.
    local least=$1 most=$(($1 + connections + 1)) inspected bypassed right=inspected other=bypassed
    case $variant in
    limiter) limiter_refuses || fail "$what: found no refusal above $limit at once, expected one" ;;
    fpx*)
        read -r inspected bypassed <<<"$(verdicts)"
        inspected=$((inspected - before[0])) bypassed=$((bypassed - before[1]))
        [ "$variant" = fpx ] || right=bypassed other=inspected
        # With nginx a session is a connection.
        [ "$proxy_name.$clients" != nginx.keepalive ] || least=$connections most=$connections
        ((${!right} >= least && ${!right} <= most && ${!other} == 0)) ||
            fail "$what: found $inspected inspected and $bypassed bypassed," \
                "expected $least to $most $right, 0 $other" ;;
    esac
}

measure() { # PROXY MODE CLIENTS VARIANT: sets what, and appends a line to the results
    proxy_name=$1 mode=$2 clients=$3 variant=$4 cap=wide
    local expected=inspect idle="0 0" header=() pids agent=none worker='' requests ns agent_ns before=(0 0) held=''
    what="$proxy_name $mode, $clients connections, $variant"
    if [ "$variant" = fpx-full ]; then cap=full expected=bypass idle="1 0"; fi
    [ "$clients" = keepalive ] || header=(-H 'Connection: close')

    free_port
    start_proxy
    eventually "$what: an answer" answers '\(inspect\|bypass\)'
    eventually "$what: no sessions before" are sessions "0 0"
    if [ $cap = full ]; then eventually "$what: the only session" take_the_session; fi
    eventually "$what: an answer of $expected" answers $expected
    eventually "$what: no sessions but those held" are sessions "$idle"
    read -r -a before <<<"$(verdicts)"

    pids=("$proxy")
    if [ "$proxy_name" = nginx ]; then
        read -r worker <"/proc/$proxy/task/$proxy/children" || true  # a list without an end of line
        [ -n "$worker" ] || fail "$what: found no worker of nginx, expected one"
        pids+=("$worker")
    elif [[ $variant == fpx* ]]; then
        # HAProxy's verdicts are made, and its sessions ended, in fpxd.
        agent=${daemon[$cap]}
        pids+=("$agent")
    fi
    cpu_time "${pids[@]}" >"$folder/cpu.before"
    timeout --preserve-status -s INT $seconds wrk -t 1 -c $connections -d 60s "${header[@]}" "http://127.0.0.1:$port/" \
        >"$folder/wrk.out" 2>&1 &
    load=$!
    wait $load || fail "$what: wrk failed"
    load=''
    [[ $variant != fpx* ]] || eventually "$what: the end of all sessions" are sessions "$idle"
    cpu_time "${pids[@]}" >"$folder/cpu.after"

    requests=$(awk '/ requests in / { print $1 }' "$folder/wrk.out")
    ! grep -E 'Socket errors|Non-2xx' "$folder/wrk.out" >&2 || fail "$what: found errors in wrk, expected none"
    [ "${requests:-0}" -gt $connections ] || fail "$what: found ${requests:-no} requests, expected more than $connections"
    check "$requests"
    read -r ns agent_ns < <(awk -v agent="/proc/$agent/" '
        NR == FNR { before[$1] = $2; next }
        { sum += $2 - before[$1] }
        index($1, agent) { ours += $2 - before[$1] }
        END { printf "%d %d\n", sum, ours }' "$folder/cpu.before" "$folder/cpu.after")
    printf '{"kind":"sample","proxy":"%s","mode":"%s","connections":"%s","variant":"%s","round":%d,' \
        "$proxy_name" "$mode" "$clients" "$variant" "$round" >>"$folder/results"
    printf '"requests":%d,"cpu_ns":%d,"of_it_fpxd_ns":%d}\n' "$requests" "$ns" "$agent_ns" >>"$folder/results"
    if [ -n "$held" ]; then exec {held}>&-; fi
    stop $proxy
    proxy=''
}

# --- All of them --------------------------------------------------------------------------------------------------------------

printf '{"kind":"run","rounds":%d,"seconds":%s,"connections":%d,"cpus":%d,"kernel":"%s","nginx":"%s","haproxy":"%s"}\n' \
    $rounds $seconds $connections "$(nproc)" "$(uname -r)" "$(nginx -v 2>&1 | sed 's|.*/||')" \
    "$(haproxy -v | awk 'NR == 1 { print $3 }')" >"$folder/results"
start_daemon wide 2000 25
start_daemon full 1 1
start_backend
# `again` is the same proxy a second time: what it differs by is the noise.
variants=(plain again limiter fpx fpx-full)
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for face in "nginx http keepalive" "nginx http new" "nginx stream new" \
        "haproxy tcp new" "haproxy http keepalive" "haproxy http new"; do
        for ((i = 0; i < ${#variants[@]}; i++)); do
            # Each round begins with another, so that none is always behind the same one.
            # shellcheck disable=SC2086  # three words
            measure $face "${variants[(i + round) % ${#variants[@]}]}"
        done
    done
done
awk -f "$here/summary.awk" -v json="$folder/summary" "$folder/results"
cat "$folder/results" "$folder/summary" >"$json"
echo "Samples and summary: $json" >&2
