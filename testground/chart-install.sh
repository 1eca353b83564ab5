#!/usr/bin/env bash
# Installs charts/hookstream on a real API server, with the real controllers and scheduler, and judges what only they can:
# admission under restricted pod security, what each service account may do, what an upgrade and an uninstall keep.
# The nodes are kwok's: pods become ready without running, so no image is needed and nothing is said about the binaries.
#
# Prints one line `ok NAME` per check; ends with 1 at the first that fails and says why.  About 20 seconds.
# Environment: TG_STATE (a new temporary folder), TG_PORT (18443; takes the next four as well).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/../charts/hookstream
tmp=$(mktemp -d)
export TG_STATE=${TG_STATE:-$tmp/cluster} TG_PORT=${TG_PORT:-18443}
trap '"$here/kubernetes/down.sh"; rm -rf "$tmp"' EXIT
tools=$("$here/install.sh" kube helm kwok)
tool() { sed -n "s/^$1 //p" <<<"$tools"; }
HELM=$(tool helm) KUBECTL=$(tool kube)/kubectl
export HELM_CACHE_HOME=$tmp/cache HELM_CONFIG_HOME=$tmp/config HELM_DATA_HOME=$tmp/data
KUBECONFIG=$("$here/kubernetes/up.sh" full | tail -1)
export KUBECONFIG
"$here/kubernetes/kwok-up.sh" 2

# check NAME COMMAND...: its output is shown only when it fails
check() {
  local name=$1; shift
  # in the background, as `set -e` sleeps in whatever stands before a `||`: only the last line would count
  "$@" >"$tmp/output" 2>&1 &
  wait $! || { echo "failed: $name"; tail -40 "$tmp/output"; exit 1; }
  echo "ok $name"
}
k() { "$KUBECTL" --request-timeout=30s "$@"; }
same() { [ "$1" = "$2" ] || { echo "expected: $1"; echo "     got: $2"; return 1; }; }

# may ACCOUNT yes|no VERB RESOURCE [OPTIONS...]
may() {
  local account=$1 expected=$2; shift 2
  same "$expected: $*" "$(k auth can-i --as "system:serviceaccount:hooks:hookstream-$account" "$@" 2>/dev/null || true): $*"
}
ring() { k -n hooks get secret hookstream-keyring -o 'jsonpath={.data.keyring}' | base64 -d; }
password() { k -n hooks get secret hookstream-postgres -o 'jsonpath={.data.password}'; }
crds() { k get customresourcedefinitions -o name | grep -c 'hookstream\.io$' || true; }
install() { "$HELM" install hookstream "$chart" --namespace hooks --wait --timeout 90s "$@"; }
upgrade() { "$HELM" upgrade hookstream "$chart" --namespace hooks --wait --timeout 90s "$@"; }

# The API server itself refuses pods that are not restricted; a volume for the try-out Postgres, as no one provisions here.
k create namespace hooks >/dev/null
k label namespace hooks pod-security.kubernetes.io/enforce=restricted >/dev/null
k create namespace payments >/dev/null
k create -f - >/dev/null <<'YAML'
apiVersion: v1
kind: PersistentVolume
metadata: {name: for-postgres}
spec: {capacity: {storage: 10Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /nowhere}}
YAML

check "install" install --set postgres.enabled=true
all_ready() {
  k -n hooks get pods
  same "5" "$(k -n hooks get pods -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True)"
}
check "two operators, two gateways and a postgres pass restricted pod security" all_ready

check "eight definitions" same 8 "$(crds)"

ring_is_well_formed() { [[ $(ring) =~ ^k1:([A-Za-z0-9+/=]{44})$ ]] && same 32 "$(base64 -d <<<"${BASH_REMATCH[1]}" | wc -c)"; }
check "the key ring is one line with an id and 32 bytes" ring_is_well_formed

operator_rights() {
  for kind in sources destinations connections topics subscriptions alertrules notificationchannels collections; do
    may operator yes watch "$kind.hookstream.io" -A
    may operator yes patch "$kind.hookstream.io" --subresource=status -A
    may operator no patch "$kind.hookstream.io" -A
    may operator no delete "$kind.hookstream.io" -A
  done
  may operator yes get secrets -n payments
  may operator no create secrets -n hooks
  may operator no update secrets -n hooks
  may operator yes create events.events.k8s.io -n payments
  may operator no list pods -n hooks
  may operator yes watch namespaces
  may operator no patch namespaces
  may operator no list customresourcedefinitions
}
check "the operator reads resources, writes statuses, and no more" operator_rights

gateway_rights() {
  may gateway no get secrets -n hooks
  may gateway no list sources.hookstream.io -n hooks
  may gateway no get pods -n hooks
  same "" "$(k -n hooks get pods -l app.kubernetes.io/component=gateway -o 'jsonpath={.items[*].spec.containers[*].volumeMounts[?(@.mountPath=="/var/run/secrets/kubernetes.io/serviceaccount")].name}')"
}
check "the gateway has no right and no token" gateway_rights

endpoints() {  # endpoints SERVICE PORT COUNT
  local slices=(k -n hooks get endpointslices -l "kubernetes.io/service-name=$1" -o)
  same "$2" "$("${slices[@]}" 'jsonpath={.items[*].ports[*].port}')"
  same "$3" "$("${slices[@]}" 'jsonpath={.items[*].endpoints[*].addresses[0]}' | wc -w)"
}
services() {
  endpoints hookstream-gateway 8080 2
  endpoints hookstream-gateway-metrics 9090 2
  endpoints hookstream-operator-metrics 9090 2
}
check "the public port and the admin port are two services" services

check "the quickstart is accepted, field by field" k -n hooks apply --dry-run=server --validate=strict -f "$here/../examples/quickstart/"

ring_before=$(ring) password_before=$(password) crds_before=$(crds)
check "upgrade" upgrade --set postgres.enabled=true --set gateway.replicas=3 --set log.level=debug
kept() {
  same "$ring_before" "$(ring)"
  same "$password_before" "$(password)"
  same "$crds_before" "$(crds)"
}
check "an upgrade keeps the key ring and the password" kept

check "uninstall" "$HELM" uninstall hookstream --namespace hooks --wait --timeout 60s
check "an uninstall keeps the key ring, the password and the definitions" kept
check "install again" install --set postgres.enabled=true --set 'watchNamespaces={payments}'
check "a new install takes over what was kept" kept

scoped_rights() {
  may operator yes list sources.hookstream.io -n payments
  may operator yes get secrets -n payments
  may operator yes patch sources.hookstream.io --subresource=status -n payments
  may operator yes create events.events.k8s.io -n hooks
  may operator no list sources.hookstream.io -n hooks
  may operator no get secrets -n hooks
  may operator no list secrets -A
  may operator yes get namespaces/payments
  may operator no get namespaces/default
}
check "watchNamespaces ends the operator's rights elsewhere" scoped_rights

# the API server's own validation of every optional resource; monitors are kinds it doesn't have
everything() {
  "$HELM" template other "$chart" --namespace hooks -f "$here/../tests/data/chart/everything.yaml" --set crds.install=false \
    --set podMonitor.enabled=false --set serviceMonitor.enabled=false | k -n hooks apply --dry-run=server --validate=strict -f -
}
check "every optional resource is valid to the API server" everything
