#!/bin/bash
# fpxd, nginx and HAProxy under one licence of 3 sessions, on loopback and in a folder that goes when it ends: demo.sh BUILD DIST
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$1 dist=$2
work=$(mktemp -d /tmp/fpx-demo.XXXXXX)
chmod 755 "$work"
home=$work/home
segment=/dev/shm/$(basename "$work")/segment
own=()
declare -A held=()
cleanup() {
    [ ${#own[@]} -eq 0 ] || kill "${own[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work" "$(dirname "$segment")"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fpx() { "$build/fpx" --socket "$home/run/control.sock" "$@"; }
until_true() { # WHAT COMMAND...: polls for 10 seconds
    local what=$1
    shift
    for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    echo "demo: $what did not come about; logs:" >&2
    cat "$work"/*.log >&2
    exit 1
}
in_use() { fpx diagnose wad license | awk '/Current Licensed Sessions/ { print $NF; exit }'; }
in_use_is() { [ "$(in_use)" = "$1" ]; }
free_port() { # a port that nobody listens on
    local port
    while port=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}
session() { # PORT NAME: opens a session and says where it went; the client keeps it
    local fd line
    exec {fd}<>"/dev/tcp/127.0.0.1/$1"
    # A refused client may find its connection closed before it has asked.
    (printf 'GET / HTTP/1.1\r\nHost: demo\r\n\r\n' >&"$fd") 2>/dev/null || true
    while IFS= read -r -t 5 line <&"$fd" 2>/dev/null; do
        case $line in
        X-Path:*) line=${line#X-Path: }; line=${line%$'\r'}; break ;;
        'HTTP/1.1 503'*) line=refused; break ;;
        esac
    done
    held[$2]=$fd
    printf '  %-12s %s\n' "$2" "${line:-refused}"
}
close_all() {
    local fd
    for fd in "${held[@]}"; do exec {fd}>&-; done
    held=()
}

say 'A licence of 3 seats with one session each, signed by an authority of our own:'
mkdir -p "$home/keys"
"$build/fpx-authority" keys new --name demo --out "$work/authority" >/dev/null
cp "$work/authority/demo.pem" "$home/keys"
"$build/fpx-authority" license sign --key "$work/authority/demo.key" --customer demo --seats 3 --sessions-per-seat 1 \
    --out "$home/license.lic" >/dev/null
# Both proxies run as this user here, so no group is needed.
start_fpxd() {
    ( # it must not hold the clients' connections
        for fd in "${held[@]}"; do exec {fd}>&-; done
        exec "$build/fpxd" --home "$home" --segment "$segment" 2>>"$work/fpxd.log"
    ) &
    fpxd=$!
    own+=($fpxd)
    until_true 'fpxd answers' fpx get system status
}
start_fpxd
fpx diagnose wad license detail

inspect=$(free_port) bypass=$(free_port) nginx_port=$(free_port) haproxy_port=$(free_port)
nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
user=$([ "$(id -u)" != 0 ] || echo 'user root;')
cat >"$work/backends.conf" <<END
$user daemon off; pid $work/backends.pid; error_log $work/backends.log warn; events {}
http {
    access_log off;
    client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    server { listen 127.0.0.1:$inspect; location / { add_header X-Path inspect; return 200 "inspected\n"; } }
    server { listen 127.0.0.1:$bypass; location / { add_header X-Path bypass; return 200 "bypassed\n"; } }
}
END
cat >"$work/nginx.conf" <<END
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
load_module $dist/lib/nginx/ngx_stream_fpx_module.so;
$user daemon off; pid $work/nginx.pid; error_log $work/nginx.log warn; worker_processes 2; events {}
stream {
    upstream inspect { server 127.0.0.1:$inspect; }
    upstream bypass { server 127.0.0.1:$bypass; }
    fpx_segment $segment;
    server { listen 127.0.0.1:$nginx_port; fpx on; proxy_pass \$fpx_verdict; }
}
END
for name in backends nginx; do
    "$nginx" -c "$work/$name.conf" -e "$work/$name.log" 2>>"$work/$name.log" &
    own+=($!)
done
cp "$root/Integrations/haproxy/spoe.conf" "$work"
cat >"$work/haproxy.cfg" <<END
global
    master-worker
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    unique-id-format %pid:%rt:%ci:%cp:%Ts
    log ring@fpxend format raw local0
    log-format "END %ID %ts %[var(txn.fpx.verdict)] %U %B"
frontend tcp_in
    bind 127.0.0.1:$haproxy_port
    filter spoe engine fpx config $work/spoe.conf
    tcp-request content reject if { var(txn.fpx.verdict) -m str block }
    use_backend inspect if { var(txn.fpx.verdict) -m str inspect }
    default_backend bypass
backend inspect
    server inspect 127.0.0.1:$inspect
backend bypass
    server bypass 127.0.0.1:$bypass
backend fpx_agents
    option spop-check
    timeout server 3m
    server fpxd unix@$home/run/spoa.sock check inter 500ms
ring fpxend
    format raw
    maxlen 512
    size 1048576
    timeout connect 1s
    timeout server 10s
    server fpxd unix@$home/run/ring.sock log-proto octet-count
END
"$(PATH=$PATH:/usr/sbin command -v haproxy)" -W -f "$work/haproxy.cfg" >>"$work/haproxy.log" 2>&1 &
own+=($!)
for port in $inspect $nginx_port $haproxy_port; do until_true "port $port" bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"; done
until_true 'nothing in use' in_use_is 0

say 'Two sessions through nginx, three through HAProxy: one licence.'
session "$nginx_port" nginx-1
session "$nginx_port" nginx-2
session "$haproxy_port" haproxy-1
session "$haproxy_port" haproxy-2
session "$haproxy_port" haproxy-3
echo "  in use: $(in_use)"
fpx diagnose wad session list

say 'The policy becomes block while they run:'
fpx config system global set license-overlimit block end
session "$nginx_port" nginx-3
fpx config system global unset license-overlimit end

say 'fpxd is killed and started again: the sessions are still counted.'
kill -KILL "$fpxd"
wait "$fpxd" 2>/dev/null || true
start_fpxd
echo "  in use: $(in_use)"

say 'nginx reloads with live sessions, twice: they still count, and there is no room for one more.'
kill -HUP "$(cat "$work/nginx.pid")"
sleep 0.5
kill -HUP "$(cat "$work/nginx.pid")"
sleep 0.5
session "$nginx_port" nginx-4
echo "  in use: $(in_use)"

say 'All workers of nginx are killed: their sessions are back, those of HAProxy stay.'
pkill -KILL -P "$(cat "$work/nginx.pid")"
until_true 'one in use' in_use_is 1
echo "  in use: $(in_use)"

say 'All clients go:'
close_all
until_true 'nothing in use' in_use_is 0
echo "  in use: $(in_use)"
fpx get system events
