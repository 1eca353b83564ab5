#!/usr/bin/env bash
# Builds an ordinary Dockerfile without an engine or a registry, for the node of node-up.sh.
# Needs root and Debian's buildah, mmdebstrap.
#
#   dockerfile.sh CONTEXT-DIR NAME:TAG OUT.tar [buildah build options...]
#
# `FROM debian:bookworm-slim` is answered by a base that mmdebstrap makes from Debian's
# packages, once.  A stage that compiles (`FROM rust:... AS build`) is replaced by a folder:
#   --build-context build=DIR        COPY --from=build /src/x then reads DIR/src/x
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=cache.sh
. "$here/cache.sh"
BASE=${BASE:-docker.io/library/debian:bookworm-slim}
context=$1 name=$2 out=$3; shift 3
b() { buildah --root "$TG_CACHE/images" --runroot /run/test-ground-images --storage-driver "${STORAGE_DRIVER:-overlay}" "$@"; }
mkdir -p "$TG_CACHE"
if ! b inspect --type image "$BASE" >/dev/null 2>&1; then
  sources=/etc/apt/sources.list.d/debian.sources      # the machine's own, so its own mirror
  [ -e "$sources" ] || sources=/etc/apt/sources.list
  mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$TG_CACHE/base.tar" "$sources"
  box=$(b from scratch)
  b add --quiet "$box" "$TG_CACHE/base.tar" / >/dev/null
  b config --cmd /bin/sh "$box"
  b commit --quiet --rm "$box" "$BASE" >/dev/null
  rm "$TG_CACHE/base.tar"
fi
# chroot isolation: RUN needs no runc and no network of its own (apt-get works as outside)
b build --quiet --isolation chroot --pull-never --tag "$name" "$@" "$context"
rm -f "$out"
b push --quiet "$name" "oci-archive:$out:$name"
