# shellcheck shell=bash
# Shared by up.sh, down.sh, node-up.sh and node-down.sh; sourced, not run.
# All state (certificates, data, logs, pid files) is in one folder, $TG_STATE.
# shellcheck source-path=SCRIPTDIR source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"
TG_STATE=${TG_STATE:-$TG_CACHE/run}
TG_NETNS=${TG_NETNS:-}                      # network namespace of it all; empty: the caller's own
TG_ADDR=${TG_ADDR:-127.0.0.1}               # the API server's address
TG_PORT=${TG_PORT:-16443}                   # its port; etcd takes the next two
TG_SERVICE_NET=${TG_SERVICE_NET:-10.96}     # services: this /16
TG_POD_NET=${TG_POD_NET:-10.244}            # pods: this /16

# Only the network namespace changes.  `ip netns exec` would also mount a new /sys,
# without /sys/fs/cgroup under it, which ends every container runtime.
NS=(env)
[ -z "$TG_NETNS" ] || NS=(nsenter --net="/run/netns/$TG_NETNS")
in_net() { "${NS[@]}" "$@"; }

alive() {  # alive NAME: does the process of NAME's pid file still run the program it was?
  local pid exe
  [ -s "$TG_STATE/$1.pid" ] || return 1
  read -r pid exe < "$TG_STATE/$1.pid"
  [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$exe" ]
}

start() {  # start NAME PROGRAM ARGS...: in the background, log and pid file in $TG_STATE
  local name=$1 exe; shift
  exe=$(readlink -f "$(command -v "$1")")
  alive "$name" && return 0
  # not through in_net: a function in the background is a subshell, whose pid $! would be
  "${NS[@]}" setsid "$@" </dev/null >"$TG_STATE/$name.log" 2>&1 &
  echo "$! $exe" > "$TG_STATE/$name.pid"
}

stop() {  # stop NAME [SECONDS]: by its own pid, TERM, then KILL after 10 s
  local pid exe
  if alive "$1"; then
    read -r pid exe < "$TG_STATE/$1.pid"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq $((${2:-10} * 10))); do alive "$1" || break; sleep 0.1; done
    ! alive "$1" || kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$TG_STATE/$1.pid"
}

wait_for() {  # wait_for SECONDS WHAT COMMAND...: poll every 0.2 s, end loudly
  local n=$(($1 * 5)) what=$2; shift 2
  while ! "$@" >/dev/null 2>&1; do
    n=$((n - 1))
    [ $n -gt 0 ] || { echo "gave up waiting for $what; logs: $TG_STATE/*.log" >&2; return 1; }
    sleep 0.2
  done
}

# cert NAME SUBJECT [SAN]: a P-256 key and a certificate of our CA, in $TG_STATE/pki
cert() {
  local d=$TG_STATE/pki
  [ -s "$d/$1.crt" ] && return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$d/$1.key" -subj "$2" 2>/dev/null |
  openssl x509 -req -CA "$d/ca.crt" -CAkey "$d/ca.key" -CAcreateserial -days 30 -out "$d/$1.crt" \
    -extfile <(printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s' "${3:+subjectAltName=$3}") 2>/dev/null
}

# kubeconfig NAME: for the certificate NAME, everything inside the file
kubeconfig() {
  local d=$TG_STATE/pki
  cat > "$TG_STATE/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$TG_ADDR:$TG_PORT", certificate-authority-data: $(base64 -w0 "$d/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$d/$1.crt"), client-key-data: $(base64 -w0 "$d/$1.key")}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
YAML
  chmod 600 "$TG_STATE/$1.kubeconfig"
}
