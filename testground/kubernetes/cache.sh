# shellcheck shell=bash
# Shared by everything that fills the cache; sourced, not run.
# The cache may be deleted at any time: the next run fills it again.
# shellcheck disable=SC2034  # ARCH: for those who source this
TG_CACHE=${TG_CACHE:-$HOME/.cache/test-ground}
case $(uname -m) in
  x86_64)  ARCH=amd64 ;;
  aarch64) ARCH=arm64 ;;
  *)       ARCH=$(uname -m) ;;
esac

# Two tests may want the same tool at once: one builds, the other waits and finds it.
# A script that holds the lock calls others that would take it: they see TG_LOCKED.
lock() {
  [ -z "${TG_LOCKED:-}" ] || return 0
  mkdir -p "$TG_CACHE"
  exec 9>"$TG_CACHE/lock"
  flock 9
  export TG_LOCKED=1
}

need_go() {
  command -v go >/dev/null && return 0
  [ ! -x /usr/local/go/bin/go ] || { PATH=$PATH:/usr/local/go/bin; return 0; }
  echo "Go 1.26 or newer is needed to build this once (https://go.dev/dl, into /usr/local/go); Debian's golang is too old" >&2
  exit 1
}
