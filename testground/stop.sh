#!/usr/bin/env bash
# Ends the servers that tests leave running between runs so that the next run is quick.
#
#   stop.sh [postgres]      postgres: nothing but TMPDIR's
set -uo pipefail
data=${TMPDIR:-/tmp}/hookstream-test-postgres-$(id -u)/data
server=$(head -1 "$data/postmaster.pid" 2>/dev/null)
# The number may be another process's by now; a server runs in its data folder.
if [[ $server =~ ^[1-9][0-9]*$ ]] && [ "/proc/$server/cwd" -ef "$data" ]; then
  kill -INT "$server" && timeout 30 tail --pid="$server" -f /dev/null
fi
[ "${1:-}" != postgres ] || exit 0
here=$(cd "$(dirname "$0")" && pwd)
cache=${TG_CACHE:-$HOME/.cache/test-ground}
for state in "$cache"/run*/; do
  [ -d "$state" ] && TG_STATE=${state%/} "$here/kubernetes/down.sh"
done
exit 0
