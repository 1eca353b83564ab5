#!/usr/bin/env bash
# Judges charts/hookstream without a cluster, in seconds: helm's linter, every preset and every file in
# tests/data/chart rendered and compared with Kubernetes' own schemas, every file in tests/data/chart/refused
# refused with the words in its first line.  chart-install.sh does the rest on a real API server.
#
# Prints one line `ok NAME` per check; ends with 1 at the first that fails and says why.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/../charts/hookstream
data=$here/../tests/data/chart
tools=$("$here/install.sh" helm kubeconform)
tool() { sed -n "s/^$1 //p" <<<"$tools"; }
HELM=$(tool helm) KUBECONFORM=$(tool kubeconform) SCHEMAS=$(tool schemas)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export HELM_CACHE_HOME=$tmp/cache HELM_CONFIG_HOME=$tmp/config HELM_DATA_HOME=$tmp/data

# check NAME COMMAND...: its output is shown only when it fails
check() {
  local name=$1; shift
  # in the background, as `set -e` sleeps in whatever stands before a `||`: only the last line would count
  "$@" >"$tmp/output" 2>&1 &
  wait $! || { echo "failed: $name"; tail -40 "$tmp/output"; exit 1; }
  echo "ok $name"
}

render() { "$HELM" template hookstream "$chart" --namespace hooks "$@"; }

# Monitors are the Prometheus Operator's kinds: Kubernetes' schemas don't know them.
valid() {
  render "$@" >"$tmp/manifests.yaml" || return 1
  "$KUBECONFORM" -strict -summary -skip PodMonitor,ServiceMonitor \
    -schema-location "$SCHEMAS/{{.ResourceKind}}{{.KindSuffix}}.json" "$tmp/manifests.yaml"
}

refused() {
  local file=$1 words
  words=$(sed -n '1s/^# refused: //p' "$file")
  [ -n "$words" ] || { echo "$file: its first line must be '# refused: WORDS'"; return 1; }
  if render -f "$file" >/dev/null 2>"$tmp/refusal"; then
    echo "$file was accepted"
    return 1
  fi
  cat "$tmp/refusal"
  grep -qF -- "$words" "$tmp/refusal" || { echo "refused, but not with: $words"; return 1; }
}

# What must hold in every rendering, whatever the values
restricted() {
  python3 - "$tmp/manifests.yaml" <<'PY'
import sys, re
for manifest in re.split(r"^---$", open(sys.argv[1]).read(), flags=re.M):
    kind = re.search(r"^kind: (\w+)", manifest, re.M)
    if not kind or kind[1] not in ("Deployment", "StatefulSet"):
        continue
    name = re.search(r"^  name: (\S+)", manifest, re.M)[1]
    for line in ("runAsNonRoot: true", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false",
                 "capabilities: {drop: [ALL]}", "seccompProfile: {type: RuntimeDefault}", "enableServiceLinks: false"):
        assert line in manifest, f"{kind[1]} {name} lacks {line}"
    if not name.endswith("-operator"):
        assert "automountServiceAccountToken: false" in manifest, f"{kind[1]} {name} can speak to the Kubernetes API"
PY
}

check "lint" "$HELM" lint --strict --quiet "$chart" -f "$data/postgres.yaml"
check "values-ha" valid -f "$chart/values-ha.yaml" -f "$data/existing-secret.yaml"
for file in "$data"/*.yaml; do
  name=$(basename "$file" .yaml)
  check "$name" valid -f "$file"
  check "$name restricted" restricted
done
for file in "$data"/refused/*.yaml; do
  check "refused $(basename "$file" .yaml)" refused "$file"
done
