#!/usr/bin/env bash
# Renews kube/go.mod and kube/go.sum for another Kubernetes release; run by hand, then commit both.
#
#   pin.sh VERSION         a version that `go list -m -versions k8s.io/kubernetes` names, such as 1.36.3
set -euo pipefail
version=${1:?usage: pin.sh VERSION}
cd "$(dirname "$0")/kube"
staging=v0.${version#*.}                      # k8s.io/api & co: v0.36.3 goes with v1.36.3
# k8s.io/kubernetes has `replace k8s.io/api => ./staging/...` lines, which count
# only in the main module; so `go install k8s.io/kubernetes/cmd/...@v` is refused.
# This module of ours says the same with the published staging modules.
upstream=$(cd / && GOFLAGS=-mod=mod go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
{
  echo "module testground.invalid/kube"
  # the binaries' GODEBUG defaults come from the main module: keep upstream's
  awk '/^(go|toolchain|godebug) [^(]/' "$upstream"
  awk '/^godebug \(/,/^\)/' "$upstream"
  echo "require k8s.io/kubernetes v$version"
  echo "replace ("
  awk -v v="$staging" '$2 == "=>" && $3 ~ /^\.\/staging\// {print "\t" $1 " => " $1 " " v}' "$upstream"
  echo ")"
} > go.mod
: > go.sum
for package in go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl,kubelet,kube-proxy}; do
  go list -mod=mod -tags grpcnotrace -deps "$package" >/dev/null
done
