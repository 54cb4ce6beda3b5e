#!/usr/bin/env bash
# The .deb of a build folder in a Debian of its own: install, run as the unit would, enforce a pod, upgrade,
# remove, purge. All in namespaces that end with this script; the Debian is kept in BUILD's parent.
#   deb_life.sh BUILD
set -euo pipefail
here=$(realpath "$(dirname "$0")")
build=$(realpath "$1")
base=$(dirname "$build")/debian-root

if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
  echo "skipped: needs root and debootstrap"
  exit 77
fi
if [ ! -e "$base/complete" ]; then
  rm -rf "$base"
  mkdir -p "$base"
  depends=libnftnl11,libmnl0,libre2-9,libsqlite3-0,libspdlog1.10,libfmt9,libyaml-cpp0.7,libcap-ng0,libbpf1,libmicrohttpd12,libssl3,libxxhash0,libasan8,libubsan1
  if ! debootstrap --variant=minbase --include=$depends,nftables,containernetworking-plugins,iproute2,sqlite3 \
    bookworm "$base/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$base/log" 2>&1; then
    tail -n 5 "$base/log"
    exit 1
  fi
  touch "$base/complete"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/tierlog-deb-life.XXXXXX")
trap 'rm -rf "$work"' EXIT
cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/out" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cp "$work"/out/*.deb "$work/tierlog.deb"
exec 3<&0 </dev/null
unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc --propagation private \
  bash -euo pipefail "$here/deb_life_root.sh" "$base/root" "$work" "$here/deb_life_inside.sh"
