#!/usr/bin/env bash
# Builds the .deb from a build folder and looks at what is in it.
#   deb_contents.sh BUILD
set -euo pipefail
build=$(realpath "$1")
source=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d "${TMPDIR:-/tmp}/tierlog-deb.XXXXXX")
trap 'rm -rf "$work"' EXIT

failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# The fastest compression: this package is thrown away.
cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/out" -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip \
  >"$work/cpack.log" 2>&1 || { cat "$work/cpack.log"; exit 1; }
deb=$(ls "$work"/out/*.deb)
root=$work/root
dpkg-deb -x "$deb" "$root"
dpkg-deb -e "$deb" "$work/control"

for file in etc/tierlog/tierlogd.yaml usr/bin/tierlog usr/bin/tierlog-cni usr/sbin/tierlogd \
  usr/lib/cni/tierlog-cni usr/lib/systemd/system/tierlogd.service usr/lib/sysusers.d/tierlog.conf \
  usr/lib/tmpfiles.d/tierlog.conf usr/share/doc/tierlog/copyright usr/share/doc/tierlog/changelog.gz \
  usr/share/doc/tierlog/docs/install.md usr/share/tierlog/deploy/cni/ptp.conflist \
  usr/share/tierlog/examples/policies/10-default-deny.yaml; do
  [ -e "$root/$file" ] || fail "$file is not in the package"
done
[ -d "$root/etc/tierlog/policies" ] || fail "no folder for policies"
[ "$(readlink "$root/usr/lib/cni/tierlog-cni")" = ../../bin/tierlog-cni ] || fail "the CNI plugin's link"
programs=$(cd "$root" && echo usr/bin/* usr/sbin/*)
[ "$programs" = "usr/bin/tierlog usr/bin/tierlog-cni usr/sbin/tierlogd" ] || fail "programs in the package: $programs"
strange=$(cd "$root" && find . ! -type d ! -path './etc/tierlog/*' ! -path './usr/bin/*' ! -path './usr/sbin/*' \
  ! -path './usr/lib/cni/*' ! -path './usr/lib/s*' ! -path './usr/lib/tmpfiles.d/*' \
  ! -path './usr/share/doc/tierlog/*' ! -path './usr/share/tierlog/*')
[ -z "$strange" ] || fail "also in the package: $strange"
foreign=$(dpkg-deb -c "$deb" | awk '$2 != "root/root"')
[ -z "$foreign" ] || fail "not root's: $foreign"
writable=$(find "$root" ! -type l -perm /022)
[ -z "$writable" ] || fail "writable for others: $writable"
if find "$root" -type f -exec grep -lF "$source" {} + | grep -v '/bin/\|/sbin/'; then
  fail "files that name the build's folder"
fi

field() { dpkg-deb -f "$deb" "$1"; }
[ "$(field Package)" = tierlog ] || fail "name $(field Package)"
for library in libc6 libnftnl11 libmnl0 libsqlite3-0 libcap-ng0 libyaml-cpp0.7; do
  field Depends | grep "$library" >/dev/null || fail "no dependency on $library: $(field Depends)"
done
[ "$(cat "$work/control/conffiles")" = /etc/tierlog/tierlogd.yaml ] || fail "conffiles"
for script in postinst prerm postrm; do
  [ -x "$work/control/$script" ] || fail "$script cannot be run"
  sh -n "$work/control/$script" || fail "$script is no shell script"
  grep -q '^set -e$' "$work/control/$script" || fail "$script goes on after errors"
done

for list in "$root"/usr/share/tierlog/deploy/cni/*.conflist; do
  python3 - "$list" <<'PYTHON' || fail "$list"
import json, sys
plugins = json.load(open(sys.argv[1]))["plugins"]
assert plugins[-1] == {"type": "tierlog-cni"}, "tierlog-cni is not the last"
PYTHON
done
"$root/usr/sbin/tierlogd" --config "$root/etc/tierlog/tierlogd.yaml" --policies "$root/etc/tierlog/policies" \
  --check >"$work/check" 2>&1 || fail "the shipped settings: $(cat "$work/check")"
# What is commented out is right as well.
sed -E 's/^#([a-z_]+:|  )/\1/' "$root/etc/tierlog/tierlogd.yaml" | grep -vE '^topology:' >"$work/all.yaml"
"$root/usr/sbin/tierlogd" --config "$work/all.yaml" --policies "$root/usr/share/tierlog/examples/policies" --check \
  >"$work/check" 2>&1 || fail "the shipped settings with their comments: $(cat "$work/check")"
for key in $("$root/usr/sbin/tierlogd" --help | sed -n 's/^ *--\([a-z_.]*\) \(VALUE\|PATH\).*/\1/p'); do
  grep -qE "^ *#? *${key##*.}:" "$root/etc/tierlog/tierlogd.yaml" || fail "the shipped settings do not explain $key"
done

unit=$root/usr/lib/systemd/system/tierlogd.service
grep -q '^ExecStart=/usr/sbin/tierlogd ' "$unit" || fail "the unit starts something else"
if command -v systemd-analyze >/dev/null; then
  sed "s#=/usr/sbin/tierlogd#=$root/usr/sbin/tierlogd#" "$unit" >"$work/tierlogd.service"
  systemd-analyze verify --man=no "$work/tierlogd.service" >"$work/verify" 2>&1 || fail "unit: $(cat "$work/verify")"
  [ ! -s "$work/verify" ] || fail "unit: $(cat "$work/verify")"
  # In tenths, of 100; whoever takes a lock off should notice.
  systemd-analyze security --offline=true --threshold=30 --no-pager "$work/tierlogd.service" >"$work/security" 2>&1 ||
    fail "the unit is more exposed than before: $(tail -n 1 "$work/security")"
fi
[ "$failures" -eq 0 ] && echo "the package is as it should be"
exit "$((failures > 0))"
