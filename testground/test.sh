#!/usr/bin/env bash
# The whole test suite: installs the servers it needs, runs every test and ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."
testground/install.sh postgres postgres18 kube helm kubeconform promtool kwok moto azurite gcs signing || exit 1

log=$(mktemp)
# A server of ours runs as another account than root.
newest=$(mktemp -d)
chmod 755 "$newest"
mkdir -m 1777 "$newest/tmp"
finish() {
  TMPDIR=$newest/tmp testground/stop.sh postgres
  rm -rf "$log" "$newest"
}
trap finish EXIT
cargo build --workspace --bins --quiet || exit 1
cargo test --workspace --no-fail-fast 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# All SQL once more, planned by a newer Postgres. Of those in PATH and Debian's folders the tests take the newest.
tar xJf "$(testground/install.sh postgres18 | cut -d' ' -f2)" -C "$newest" &&
  [[ $("$newest/bin/postgres" --version) == *" 18."* ]] &&
  TMPDIR=$newest/tmp PATH=$newest/bin:$PATH cargo test --workspace --test store 2>&1 | tee -a "$log"
[ "${PIPESTATUS[0]}" = 0 ] || status=1

read -r passed failed ignored < <(awk '/^test result:/ {p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}' "$log")
if [ "$ignored" != 0 ]; then
  echo "$ignored tests were ignored: no test of ours may skip itself" >&2
  status=1
fi
# A crash of a test binary shows in cargo's status, not in a result line.
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed"
[ "$status" = 0 ] && [ "$failed" = 0 ]
