#!/bin/sh
# A Ray head on this machine, with its job server: cluster/local.sh start|stop|status
#
# Everything listens on 127.0.0.1 where Ray lets it, and token authentication is on: the token is in
# RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token, readable by its owner only. `stop` ends what `start`
# started and nothing else. The ports are outside 10002-19999, where Ray's workers take theirs.
#
#   RAYMETA_PORT       control service          (6391; the two ports after it are taken too)
#   RAYMETA_DASHBOARD  dashboard and jobs       (8265)
#   RAYMETA_TEMP       state, logs, sockets     (/tmp/raymeta-$UID; short: a socket path has 107 bytes)
#   RAYMETA_CPUS       CPUs that Ray hands out  (those of the machine)
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
port=${RAYMETA_PORT:-6391}
dashboard=${RAYMETA_DASHBOARD:-8265}
temp=${RAYMETA_TEMP:-/tmp/raymeta-$(id -u)}
cpus=${RAYMETA_CPUS:-$(getconf _NPROCESSORS_ONLN)}
pid_file=$temp/head.pid

if [ -x "$here/.venv/bin/ray" ]; then PATH=$here/.venv/bin:$PATH; fi
export PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$temp"
# HAProxy in front of Serve, the quiet settings and the token: as `raymeta` itself starts Ray
settings='
import shlex
from raymeta import runtime
before = dict(__import__("os").environ)
runtime.prepare_environment()
for name, value in sorted(__import__("os").environ.items()):
    if name not in before:
        print(f"export {name}={shlex.quote(value)}")
'

fail() { echo "$1" >&2; exit "${2:-1}"; }

# The head is the leader of its own session; its id is in the pid file with the time it started,
# so that a process that got the same id later is never taken for it.
started_at() { ps -o lstart= -p "$1" 2>/dev/null || true; }

head_pid() {
  [ -f "$pid_file" ] || return 1
  pid=$(sed -n 1p "$pid_file")
  [ -n "$pid" ] && [ -n "$(alive "$pid")" ] && [ "$(started_at "$pid")" = "$(sed -n 2p "$pid_file")" ]
}

start() {
  if head_pid; then fail "The head runs already (process $pid, $temp)." 2; fi
  command -v ray >/dev/null || fail "There is no 'ray' on PATH or in .venv: run 'make install'." 2
  command -v setsid >/dev/null || fail "There is no 'setsid' (package util-linux)." 2
  free "$port" RAYMETA_PORT
  free "$((port + 1))" RAYMETA_PORT
  free "$((port + 2))" RAYMETA_PORT
  free "$dashboard" RAYMETA_DASHBOARD
  mkdir -p "$temp"
  chmod 700 "$temp"
  eval "$(cd "$here" && python -c "$settings")"
  cd "$temp"
  setsid ray start --head --block \
    --node-ip-address=127.0.0.1 --port="$port" --num-cpus="$cpus" \
    --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" \
    --ray-client-server-port="$((port + 1))" --dashboard-agent-listen-port="$((port + 2))" \
    --object-store-memory=268435456 \
    --temp-dir="$temp" --disable-usage-stats >"$temp/head.log" 2>&1 </dev/null &
  pid=$!
  sleep 0.2
  { echo "$pid"; started_at "$pid"; } >"$pid_file"
  waited=0
  until answers; do
    head_pid || { rm -f "$pid_file"; tail -n 20 "$temp/head.log" >&2; fail "The head did not start."; }
    [ "$waited" -lt 120 ] || { stop; fail "The head did not answer within 60 s; see $temp/head.log."; }
    waited=$((waited + 1))
    sleep 0.5
  done
  echo "Ray head: 127.0.0.1:$port   jobs and dashboard: http://127.0.0.1:$dashboard   state: $temp"
  echo "Try:  raymeta job submit --address http://127.0.0.1:$dashboard -- train --help"
}

free() {
  python -c "import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', int(sys.argv[1])))" "$1" 2>/dev/null ||
    fail "Port $1 on 127.0.0.1 is in use, maybe by another head. Choose another with $2=NUMBER." 2
}

# Asks the job server itself, with the token, and the agent that starts jobs: the dashboard's pages
# answer before either does.
answers() {
  python - "$dashboard" "$((port + 2))" <<'PY' >/dev/null 2>&1
import os
import sys
import urllib.request
from pathlib import Path
token = os.environ.get("RAY_AUTH_TOKEN") or Path(
    os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
).read_text().strip()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for port, path in ((sys.argv[1], "api/jobs/"), (sys.argv[2], "api/local_raylet_healthz")):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", headers={"Authorization": f"Bearer {token}"}
    )
    opener.open(request, timeout=5).read()
PY
}

# The processes of the head's session, and theirs: Ray starts workers in sessions of their own.
family() {
  ps -e -o pid= -o ppid= -o sid= | awk -v root="$1" '
    { parent[$1] = $2; session[$1] = $3 }
    function ours(p,  n) {
      for (n = 0; p > 1 && n < 64; n++) { if (p == root || session[p] == root) return 1; p = parent[p] }
      return 0
    }
    END { for (p in parent) if (ours(p)) print p }'
}

stop() {
  if ! head_pid; then rm -f "$pid_file"; echo "No head that this script started runs."; return 0; fi
  pids=$(family "$pid")
  # shellcheck disable=SC2086
  kill -TERM $pids 2>/dev/null || true
  waited=0
  # shellcheck disable=SC2086
  while [ -n "$(alive $pids)" ] && [ "$waited" -lt 20 ]; do sleep 0.5; waited=$((waited + 1)); done
  # shellcheck disable=SC2086
  left=$(alive $pids)
  # shellcheck disable=SC2086
  [ -z "$left" ] || kill -KILL $left 2>/dev/null || true
  rm -f "$pid_file"
  echo "Stopped."
}

# One that has ended and that nobody waited for (state Z) is not alive.
alive() {
  for p in "$@"; do
    case "$(ps -o stat= -p "$p" 2>/dev/null)" in "" | Z*) ;; *) printf '%s ' "$p" ;; esac
  done
}

status() {
  if ! head_pid; then echo "No head that this script started runs."; exit 1; fi
  if answers; then state="answers"; else state="does not answer"; fi
  echo "Ray head: process $pid, 127.0.0.1:$port; job server at http://127.0.0.1:$dashboard $state."
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) fail "Usage: cluster/local.sh start|stop|status" 2 ;;
esac
