#!/usr/bin/env bash
# Builds the Go tools around the cluster, and fake-gcs-server, each in a module of its own, once per version.
#
#   extras.sh helm|kubeconform|kwok|coredns|fake-gcs-server ...      binaries go to $TG_CACHE/bin
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=cache.sh
. "$here/cache.sh"
HELM=4.3.1 KUBECONFORM=0.8.0 KWOK=0.8.0 COREDNS=1.15.0 FAKE_GCS=1.56.1
BIN=$TG_CACHE/bin
mkdir -p "$BIN"

# is_there NAME VERSION: the binary, and of this version
is_there() { [ -x "$BIN/$1" ] && [ "$(cat "$BIN/.$1.version" 2>/dev/null)" = "$2" ]; }

# one NAME VERSION PACKAGE [LDFLAGS]: `go install`, unless this version is there
one() {
  is_there "$1" "$2" && return 0
  need_go
  lock
  is_there "$1" "$2" && return 0
  CGO_ENABLED=0 GOBIN=$BIN nice -n 5 go install -trimpath -ldflags "-s -w ${4:-}" "$3@v$2"
  echo "$2" > "$BIN/.$1.version"
}

kwok() {
  one kwok "$KWOK" sigs.k8s.io/kwok/cmd/kwok
  [ ! -s "$BIN/kwok-stages.yaml" ] || return 0
  need_go
  # `go install`ed kwok has no stages inside ("No pod stages found"): take the module's own
  dir=$(cd / && GOFLAGS=-mod=mod go mod download -json "sigs.k8s.io/kwok@v$KWOK" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/kustomize/stage
  for f in "$dir"/node/fast/node-*.yaml "$dir"/node/heartbeat-with-lease/node-*.yaml "$dir"/pod/fast/pod-*.yaml; do
    cat "$f"; echo; echo ---
  done > "$BIN/kwok-stages.yaml.new"
  mv "$BIN/kwok-stages.yaml.new" "$BIN/kwok-stages.yaml"
}

coredns() {
  is_there coredns "$COREDNS" && return 0
  need_go
  lock
  # The stock main package links every plugin and three clouds' SDKs; these few are all a test needs.
  src=$TG_CACHE/src/coredns-$COREDNS
  mkdir -p "$src"
  cat > "$src/main.go" <<'GO'
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() { coremain.Run() }
GO
  printf 'module testground.invalid/coredns\n\ngo 1.26.0\n\nrequire github.com/coredns/coredns v%s\n' "$COREDNS" > "$src/go.mod"
  (cd "$src" && CGO_ENABLED=0 nice -n 5 go build -mod=mod -trimpath -ldflags "-s -w" -o "$BIN/coredns" .)
  echo "$COREDNS" > "$BIN/.coredns.version"
}

for tool in "$@"; do
  case $tool in
    helm)        one helm "$HELM" "helm.sh/helm/v${HELM%%.*}/cmd/helm" "-X helm.sh/helm/v${HELM%%.*}/internal/version.version=v$HELM" ;;
    kubeconform) one kubeconform "$KUBECONFORM" github.com/yannh/kubeconform/cmd/kubeconform ;;
    kwok)        kwok ;;
    coredns)     coredns ;;
    fake-gcs-server) one fake-gcs-server "$FAKE_GCS" github.com/fsouza/fake-gcs-server ;;
    *) echo "unknown: $tool" >&2; exit 2 ;;
  esac
done
