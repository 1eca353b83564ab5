#!/usr/bin/env bash
# Ends the servers that tests leave running between runs so that the next run is quick.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${TG_CACHE:-$HOME/.cache/test-ground}
for state in "$cache"/run*/; do
  [ -d "$state" ] && TG_STATE=${state%/} "$here/kubernetes/down.sh"
done
for pid in "$cache"/postgres*/data/postmaster.pid "$HOME"/.cache/hookstream-test*/*/postmaster.pid; do
  [ -s "$pid" ] && kill -INT "$(head -1 "$pid")" 2>/dev/null
done
exit 0
