#!/usr/bin/env bash
# The chart and the Dockerfile's image on a real node, as a new user would try them: installed by helm, with restricted pod
# security, a real kubelet and kube-proxy, pods that really run.  What chart-install.sh cannot see is judged here: images,
# probes, volumes, rolling restarts under load, killed pods.
#
# Prints one line `ok NAME: FIGURES` per check; ends with 1 at the first that fails and says why.  Root only, as containers and
# network namespaces need it; not part of `make test`.  About five minutes once its tools are there (first time ten more).
# Leaves nothing running and nothing mounted.
#
# Environment: TRIAL_BINARIES (a folder with the three binaries; default: target/debug, built), TG_CACHE, TG_NETNS (tg).
#
# Two things are not the real ones, as no image can be pulled: the Dockerfile's compile stage is a folder with our binaries,
# and the try-out Postgres is Debian's behind trial/postgres/entrypoint.sh.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "node-trial.sh needs root: it runs containers in a network namespace of its own" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
tmp=$(mktemp -d /tmp/node-trial.XXXXXX)
chmod 755 "$tmp"        # user postgres goes through it
export TG_NETNS=${TG_NETNS:-tg} TG_STATE=$tmp/node
ADDR=10.210.0.2         # node-up.sh's node; our Postgres and receiver are on it too
receiver=

finish() {
  local rc=$?
  trap - EXIT
  for pid in $receiver $(cat "$tmp/sender" 2>/dev/null); do kill "$pid" 2>/dev/null || true; done
  [ ! -s "$tmp/db/data/postmaster.pid" ] || kill -INT "$(head -1 "$tmp/db/data/postmaster.pid")" || true
  "$here/kubernetes/node-down.sh" || rc=1
  rm -rf "$tmp"
  exit $rc
}
[ ! -e "/run/netns/$TG_NETNS" ] || { rmdir "$tmp"; echo "namespace $TG_NETNS is there: end it with node-down.sh, or set TG_NETNS" >&2; exit 1; }
trap finish EXIT
trap 'exit 130' INT TERM

inside() { nsenter --net="/run/netns/$TG_NETNS" "$@"; }
k() { inside "$KUBECTL" --request-timeout=30s "$@"; }
helm() { inside "$HELM" "$@"; }
containers() { ctr -a "/run/test-ground-$TG_NETNS/containerd.sock" -n k8s.io "$@"; }
now() { date +%s%3N; }                                        # milliseconds
same() { [ "$1" = "$2" ] || { echo "expected: $1"; echo "     got: $2"; return 1; }; }

# check NAME COMMAND...: its output is shown only when it fails; what it puts in $tmp/figures goes on the line
check() {
  local name=$1; shift
  rm -f "$tmp/figures"
  # in the background, as `set -e` sleeps in whatever stands before a `||`: only the last line would count
  "$@" >"$tmp/output" 2>&1 &
  wait $! || { echo "failed: $name"; tail -60 "$tmp/output"; around; exit 1; }
  echo "ok $name$(sed '1s/^/: /' "$tmp/figures" 2>/dev/null || true)"
}
around() {
  [ -n "${KUBECONFIG:-}" ] || return 0
  echo "--- the cluster"
  k get pods,hsrc,hdst,hconn -A -o wide || true
  for space in hooks tryout; do
    for part in operator gateway postgres; do k -n $space logs -l "app.kubernetes.io/component=$part" --tail=8 --prefix || true; done
  done
  k get events -A --field-selector=type=Warning | tail -10 || true
}
figures() { echo "$*" >"$tmp/figures"; }

# until_true SECONDS COMMAND...
until_true() {
  local end=$(($(now) + $1 * 1000)); shift
  until "$@"; do [ "$(now)" -lt $end ] || { echo "not within the time: $*"; return 1; }; sleep 0.2; done
}

# ---- what is tried

tools=$("$here/install.sh" postgres kube helm node)
tool() { sed -n "s/^$1 //p" <<<"$tools"; }
PG=$(tool postgres) HELM=$(tool helm) KUBECTL=$(tool kube)/kubectl
export HELM_CACHE_HOME=$tmp/cache HELM_CONFIG_HOME=$tmp/config HELM_DATA_HOME=$tmp/data

if [ -z "${TRIAL_BINARIES:-}" ]; then
  (cd "$root" && cargo build --quiet --workspace --bins)
  TRIAL_BINARIES=$root/target/debug
fi

image() {
  local stage=$tmp/stage
  mkdir -p "$stage/src/target/release" "$stage/etc/ssl/certs"
  for name in hookstream hookstream-operator hookstream-gateway; do
    strip -o "$stage/src/target/release/$name" "$TRIAL_BINARIES/$name"
  done
  cp /etc/ssl/certs/ca-certificates.crt "$stage/etc/ssl/certs/"
  "$here/kubernetes/dockerfile.sh" "$root" localhost/hookstream:trial "$tmp/hookstream.tar" --build-context "build=$stage"
  figures "$(du -m "$tmp/hookstream.tar" | cut -f1) MiB with debug binaries"
}
check "the Dockerfile builds as it stands" image
check "the stand-in for the Postgres image builds" \
  "$here/kubernetes/dockerfile.sh" "$here/trial/postgres" localhost/postgres:trial "$tmp/postgres.tar"

node() {
  "$here/kubernetes/node-up.sh"
  for archive in "$tmp"/*.tar; do containers images import "$archive"; done
}
check "a node with containerd, kubelet, kube-proxy and CoreDNS" node
export KUBECONFIG=$TG_STATE/admin.kubeconfig

# A database that is not the cluster's, with a role that owns it and nothing more
database() {
  local pg=(runuser -u postgres --)
  install -d -o postgres "$tmp/db"
  echo admin >"$tmp/db/password"
  "${pg[@]}" "$PG/initdb" -D "$tmp/db/data" -A scram-sha-256 --pwfile="$tmp/db/password" --no-sync
  echo 'host all all 10.0.0.0/8 scram-sha-256' >>"$tmp/db/data/pg_hba.conf"
  inside "${pg[@]}" "$PG/pg_ctl" -D "$tmp/db/data" -w -l "$tmp/db/log" \
    -o "-c listen_addresses=$ADDR -c unix_socket_directories=$tmp/db -c fsync=off" start
  export PGPASSWORD=admin
  inside "$PG/psql" -h "$ADDR" -U postgres -c "create role hookstream login password 'a-secret'" -c 'create database hooks owner hookstream'
}
check "a Postgres outside of the cluster" database

traffic() { inside python3 "$here/trial/traffic.py" "$@"; }
# not through a function: its subshell's pid would be $!
nsenter --net="/run/netns/$TG_NETNS" python3 "$here/trial/traffic.py" receive "$ADDR" 9900 "$tmp/received" &
receiver=$!

# space NAMESPACE: restricted, and in it the receiver as Service `ci`, as one of the user's own would be
space() {
  k create namespace "$1"
  k label namespace "$1" pod-security.kubernetes.io/enforce=restricted
  k -n "$1" apply -f - <<YAML
apiVersion: v1
kind: Service
metadata: {name: ci}
spec: {ports: [{port: 9900}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ci, labels: {kubernetes.io/service-name: ci}}
addressType: IPv4
ports: [{port: 9900, name: ""}]
endpoints: [{addresses: [$ADDR]}]
YAML
}

# release COMMAND NAMESPACE [OPTIONS...]
release() {
  helm "$1" hookstream "$root/charts/hookstream" --namespace "$2" --wait --timeout 120s --set 'egress.allow={*.svc.cluster.local}' \
    --set image.repository=localhost/hookstream,image.tag=trial,image.pullPolicy=Never "${@:3}"
}

# ---- a database of one's own

external=(--set database.existingSecret.name=database)
install_it() {
  local begin
  space hooks
  k -n hooks create secret generic database --from-literal=url="postgres://hookstream:a-secret@$ADDR:5432/hooks"
  begin=$(now)
  release install hooks "${external[@]}"
  figures "$(($(now) - begin)) ms"
}
check "helm install --wait" install_it

steady() {  # steady NAMESPACE PODS: all ready, none ever restarted
  k -n "$1" get pods
  same "$2" "$(k -n "$1" get pods --field-selector=status.phase=Running -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True)"
  same "" "$(k -n "$1" get pods -o 'jsonpath={.items[*].status.containerStatuses[?(@.restartCount>0)].name}')"
}
check "all pods are ready under restricted pod security, none restarted" steady hooks 4

quickstart() {  # quickstart NAMESPACE: its receiver is the only thing changed
  local begin spent
  mkdir -p "$tmp/$1"
  for file in "$root"/examples/quickstart/*.yaml; do
    sed "s#http://127.0.0.1:9900/#http://ci.$1.svc.cluster.local:9900/#" "$file" >"$tmp/$1/$(basename "$file")"
  done
  begin=$(now)
  k -n "$1" apply -f "$tmp/$1/"
  k -n "$1" wait --for=condition=Ready hsrc,hdst,hconn --all --timeout=20s
  spent=$(($(now) - begin))
  figures "$spent ms, from before apply"
  [ $spent -le 2000 ] || { echo "took $spent ms"; return 1; }
}
check "the quickstart is Ready within two seconds" quickstart hooks

shown() {
  k -n hooks get hsrc,hdst,hconn
  k -n hooks get hsrc github --no-headers | grep -E 'github +http://hookstream-gateway.hooks.svc:8080/v1/ingest/github +True'
  k -n hooks get hdst ci --no-headers | grep -E 'ci +http://ci.hooks.svc.cluster.local:9900/hooks +Closed +True'
  k -n hooks get hconn --no-headers | grep -cE ' +True +Ready ' | grep -x 2
}
check "kubectl get shows the URLs and Ready" shown

url() { echo "http://$(k -n "$1" get service hookstream-gateway -o 'jsonpath={.spec.clusterIP}'):8080/v1/ingest/github"; }
# delivered SECONDS FILE: every event that FILE says was answered 200 has reached the receiver
delivered() {
  until_true "$1" all_of "$2"
  # at least once, not exactly: told, not judged
  awk 'NR == FNR {want[$3]; next} $2 in want {n[$2]++} END {for (e in n) if (n[e] > 1) d++; print d + 0}' "$2" "$tmp/received" >"$tmp/twice"
}
all_of() { awk 'NR == FNR {got[$2]; next} !($3 in got) {exit 1}' "$tmp/received" "$1"; }
one() { traffic send "$(url "$1")" "$2" 1 1 "$tmp/one" && awk '$1 != 1 {exit 1}' "$tmp/one" && delivered 10 "$tmp/one"; }
check "a signed push gets 200 with its event id, and the receiver has it" one hooks 1

refused() {
  inside curl -s -o "$tmp/answer" -w '%{http_code}' -H 'x-github-event: push' -d '{}' "$(url hooks)" | grep -x 401
  grep -F '"code":"UNAUTHORIZED"' "$tmp/answer"
}
check "an unsigned one gets 401" refused

# twice in the conditions, once as an Event
explained() {
  k -n hooks describe hsrc misspelt | tee /dev/stderr |
    grep -cF "there is no Secret \`github-webhok\` in namespace \`hooks\`; create it" | grep -x 3
}
broken() {
  sed 's/github-webhook, key/github-webhok, key/; s/name: github$/name: misspelt/; s/path: github /path: misspelt /' \
    "$root/examples/quickstart/quickstart.yaml" | awk 'BEGIN {RS = "---\n"; ORS = RS} /kind: Source/' | k -n hooks apply -f -
  k -n hooks wait --for=condition=Ready=False hsrc/misspelt --timeout=10s
  until_true 10 explained
  k -n hooks delete hsrc misspelt
}
check "kubectl describe says which Secret is missing and what to do" broken

# ---- life and death

# under_load FIRST COUNT COMMAND...: a few requests a second while COMMAND runs, each on a connection of its own
under_load() {
  local first=$1 count=$2 to; shift 2
  to=$(url hooks)
  inside python3 "$here/trial/traffic.py" send "$to" "$first" "$count" 12 "$tmp/sent" 2>"$tmp/troubles" &
  echo $! >"$tmp/sender"
  "$@"
  wait "$(cat "$tmp/sender")"
  rm "$tmp/sender"
  cat "$tmp/troubles"
  same "$count" "$(wc -l <"$tmp/sent")"
  delivered 40 "$tmp/sent"
  figures "$count requests, $(awk '$1 != 1' "$tmp/sent" | wc -l) not at the first try, all delivered, $(cat "$tmp/twice") twice"
}
restart() { sleep 1; k -n hooks rollout restart deployment/hookstream-gateway; k -n hooks rollout status deployment/hookstream-gateway --timeout=90s; sleep 6; }
restarts() { restart; restart; }
rolling() {
  under_load 1000 360 restarts
  same "" "$(cat "$tmp/troubles")"
}
check "two rolling restarts under load lose no request" rolling

a_gateway() { k -n hooks get pods -l app.kubernetes.io/component=gateway --field-selector=status.phase=Running -o "jsonpath={.items[0].$1}"; }
forced() { sleep 1; k -n hooks delete pod "$(a_gateway metadata.name)" --grace-period=0 --force; k -n hooks rollout status deployment/hookstream-gateway --timeout=90s; }
check "a gateway pod deleted by force loses no event" under_load 2000 120 forced

killed() { local id; sleep 1; id=$(a_gateway 'status.containerStatuses[0].containerID'); containers tasks kill -s KILL "${id#containerd://}"; }
check "kill -9 of a gateway loses no event" under_load 3000 180 killed

leaderless() {
  k -n hooks rollout status deployment/hookstream-gateway --timeout=90s
  k -n hooks scale deployment/hookstream-operator --replicas=0
  k -n hooks wait --for=delete pod -l app.kubernetes.io/component=operator --timeout=60s
  restart
  one hooks 4000
  k -n hooks scale deployment/hookstream-operator --replicas=2
  k -n hooks rollout status deployment/hookstream-operator --timeout=60s
}
check "without an operator traffic goes on, through a restart of the gateways too" leaderless

kept() { k -n "$1" get secrets "${@:2}" -o 'jsonpath={.items[*].data}{.data}'; }
crds() { k get customresourcedefinitions -o name | grep -c 'hookstream\.io$'; }
upgrade() {
  local ring; ring=$(kept hooks hookstream-keyring)
  under_load 5000 150 release upgrade hooks "${external[@]}" --set gateway.replicas=3 --set log.level=debug
  same "" "$(cat "$tmp/troubles")"
  same "$ring" "$(kept hooks hookstream-keyring)"
  until_true 60 steady hooks 5
}
check "helm upgrade under load loses no request and keeps the key ring" upgrade

uninstall() {
  local ring; ring=$(kept hooks hookstream-keyring)
  helm uninstall hookstream --namespace hooks --wait --timeout 90s
  same "" "$(k -n hooks get deployments,statefulsets,serviceaccounts -o name | grep hookstream || true)"
  same 8 "$(crds)"
  same "$ring" "$(kept hooks hookstream-keyring)"
  k -n hooks get hsrc/github hdst/ci hconn/github-to-ci
}
check "helm uninstall keeps definitions, resources and key ring" uninstall

again() {
  release install hooks "${external[@]}"
  k -n hooks wait --for=condition=Ready hsrc,hdst,hconn --all --timeout=20s
  one hooks 6000
  # its paths are taken, for every release that watches all namespaces
  k -n hooks delete hsrc,hdst,hconn --all
  helm uninstall hookstream --namespace hooks --wait --timeout 90s
}
check "a new install goes on where the old one ended" again

# ---- the try-out Postgres (not the real image: see above)

tryout=(--set postgres.enabled=true --set postgres.image=localhost/postgres:trial)
volume() {  # as a provisioner would: a folder that is root's until the kubelet gives it to the pod's group
  mkdir -p "$tmp/volume"
  k create -f - <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: for-postgres}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  local: {path: $tmp/volume}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node1]}]}]}}
YAML
}
with_postgres() {
  local begin
  space tryout
  volume
  begin=$(now)
  # the definitions that the first release left are another namespace's, to helm
  release install tryout "${tryout[@]}" --take-ownership
  figures "$(($(now) - begin)) ms"
  until_true 30 steady tryout 5
}
check "postgres.enabled: helm install --wait in another namespace, under restricted pod security" with_postgres
check "postgres.enabled: the quickstart is Ready within two seconds" quickstart tryout
check "postgres.enabled: a push is delivered" one tryout 7000

postgres_gone() {
  local begin; begin=$(now)
  k -n tryout delete pod hookstream-postgres-0 --wait
  k -n tryout rollout status statefulset/hookstream-postgres --timeout=60s
  until_true 30 one_once tryout 7001
  figures "200 again after $(($(now) - begin)) ms"
}
one_once() { one "$@" 2>&1; }
check "postgres.enabled: its pod deleted comes back with its data" postgres_gone

postgres_kept() {
  local password; password=$(kept tryout hookstream-postgres)
  release upgrade tryout "${tryout[@]}" --set log.level=debug
  same "$password" "$(kept tryout hookstream-postgres)"
  helm uninstall hookstream --namespace tryout --wait --timeout 90s
  same "$password" "$(kept tryout hookstream-postgres)"
  k -n tryout get persistentvolumeclaim data-hookstream-postgres-0
  release install tryout "${tryout[@]}"
  k -n tryout wait --for=condition=Ready hsrc,hdst,hconn --all --timeout=20s
  one tryout 7002
}
check "postgres.enabled: upgrade, uninstall and a new install keep volume and password" postgres_kept

# what docs/operating.md says
rid_of_it() {
  helm uninstall hookstream --namespace tryout --wait --timeout 90s
  k get crd -o name | grep 'hookstream\.io$' | inside xargs "$KUBECTL" delete
  k -n tryout delete secret,pvc -l app.kubernetes.io/instance=hookstream
  # pods may end after helm has
  k -n tryout wait --for=delete pod --all --timeout=25s
  same "" "$(k get crd -o name; k -n tryout get all,secrets,pvc,serviceaccounts,configmaps -o name | grep hookstream || true)"
}
check "nothing is left when the last of it is deleted as the page says" rid_of_it
