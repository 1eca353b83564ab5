#!/usr/bin/env bash
# Builds real Kubernetes parts from the Go module proxy and keeps them in a
# folder keyed by version.  Second run: nothing to do, milliseconds.
#
#   build.sh [control|node|all]        (default: control)
#
#   control  etcd kube-apiserver kube-controller-manager kube-scheduler kubectl
#   node     kubelet kube-proxy
#
# Prints the folder of the binaries on its last line.
# What is built is pinned by kube/go.mod and kube/go.sum (pin.sh renews them); the result is the same
# bytes on every machine.  Environment: TG_CACHE (~/.cache/test-ground), GOFLAGS, GOCACHE …
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=cache.sh
. "$here/cache.sh"

version=$(sed -n 's/^require k8s.io\/kubernetes v//p' "$here/kube/go.mod")
BIN=$TG_CACHE/bin/kube-$version-$ARCH

control="etcd kube-apiserver kube-controller-manager kube-scheduler kubectl"
node="kubelet kube-proxy"
case ${1:-control} in
  control) want=$control ;;
  node)    want=$node ;;
  all)     want="$control $node" ;;
  *)       echo "usage: $0 [control|node|all]" >&2; exit 2 ;;
esac

not_there() { for name in $want; do [ -x "$BIN/$name" ] || printf ' %s' "$name"; done; }

missing=$(not_there)
if [ -n "$missing" ]; then
  need_go
  lock
  missing=$(not_there)          # another run may have built them while this one waited
fi
if [ -n "$missing" ]; then
  packages=()
  for name in $missing; do
    case $name in
      etcd) packages+=(go.etcd.io/etcd/server/v3) ;;  # the very version that kube-apiserver's own tests embed
      *)    packages+=("k8s.io/kubernetes/cmd/$name") ;;
    esac
  done
  # what `kubectl version` and the server's /version say; without them v0.0.0-master
  ld="-s -w"
  for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    ld="$ld -X $p.gitVersion=v$version -X $p.gitMajor=${version%%.*} -X $p.gitMinor=$(echo "$version" | cut -d. -f2)"
    ld="$ld -X $p.gitTreeState=clean -X $p.buildDate=1970-01-01T00:00:00Z"
  done
  mkdir -p "$BIN"
  stage=$(mktemp -d "$TG_CACHE/stage.XXXXXX")
  trap 'rm -rf "$stage"' EXIT
  echo "building:$missing (about six minutes the first time)" >&2
  (cd "$here/kube" && CGO_ENABLED=0 nice -n 5 go build -mod=readonly -trimpath -tags grpcnotrace -ldflags "$ld" -o "$stage/" "${packages[@]}")
  [ ! -e "$stage/server" ] || mv "$stage/server" "$stage/etcd"   # go names it after the path
  mv "$stage"/* "$BIN/"         # only whole binaries ever stand there
fi
echo "$BIN"
