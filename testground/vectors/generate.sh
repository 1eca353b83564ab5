#!/bin/sh
# Installs the providers' libraries below ~/.cache and writes tests/data/verification anew. Needs node, python3, go and openssl.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${VECTORS_HOME:-$HOME/.cache/hookstream-vectors}
mkdir -p "$home/go"
cp "$here/package.json" "$home/package.json"
(cd "$home" && npm install --no-audit --no-fund --silent)
[ -d "$home/venv" ] || python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q slack_sdk==3.47.0 paypalrestsdk==1.13.3
(cd "$home/go" && { [ -f go.mod ] || go mod init vectors; go get github.com/PagerDuty/go-pagerduty@v1.8.0; })
node "$here/generate.mjs" "$home" "$here/../../tests/data/verification"
