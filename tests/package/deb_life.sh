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
work=$(mktemp -d "${TMPDIR:-/tmp}/tierlog-deb-life.XXXXXX")
trap 'rm -rf "$work"' EXIT
cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/out" -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cp "$work"/out/*.deb "$work/tierlog.deb"

# The Debian has what this package says that it needs, or its dependencies would not be what is tested.
provider_of() { # debootstrap knows no virtual packages
  dpkg-query -W -f '${Package} ${Provides}\n' | awk -v name="$1" '{ gsub(",", " "); for (i = 1; i <= NF; ++i) if ($i == name) found = $1 } END { print found }'
}
depends=$(dpkg-deb -f "$work/tierlog.deb" Depends | tr ',' '\n' | while read -r name _; do provider_of "$name"; done | sort -u | paste -sd,)
if [ "$(cat "$base/complete" 2>/dev/null)" != "$depends" ]; then
  rm -rf "$base"
  mkdir -p "$base"
  if ! debootstrap --variant=minbase --include="$depends,nftables,containernetworking-plugins,iproute2,sqlite3" \
    bookworm "$base/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$base/log" 2>&1; then
    tail -n 5 "$base/log"
    exit 1
  fi
  echo "$depends" >"$base/complete"
fi
exec 3<&0 </dev/null
unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc --propagation private \
  bash -euo pipefail "$here/deb_life_root.sh" "$base/root" "$work" "$here/deb_life_inside.sh"
