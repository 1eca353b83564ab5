#!/usr/bin/env bash
# Ends the servers that tests leave running between runs so that the next run is quick.
#
#   stop.sh [postgres]      of TMPDIR's, and nothing else
set -uo pipefail
for pid in "${TMPDIR:-/tmp}"/hookstream-test-postgres-*/data/postmaster.pid; do
  [ -s "$pid" ] || continue
  server=$(head -1 "$pid")
  kill -INT "$server" 2>/dev/null && tail --pid="$server" -f /dev/null
done
[ "${1:-}" != postgres ] || exit 0
here=$(cd "$(dirname "$0")" && pwd)
cache=${TG_CACHE:-$HOME/.cache/test-ground}
for state in "$cache"/run*/; do
  [ -d "$state" ] && TG_STATE=${state%/} "$here/kubernetes/down.sh"
done
exit 0
