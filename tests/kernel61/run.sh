#!/usr/bin/env bash
# Tests of a build folder under Debian 12's own kernel (6.1), which lacks much of what newer ones have: a
# virtual machine whose root is this machine's, read-only, with what it writes in memory.
#   run.sh BUILD PROGRAM[:FILTER]…      PROGRAM in BUILD/tests, FILTER as --gtest_filter takes it
#   run.sh BUILD unit                   the package's unit, with systemd as the machine's first process: of a
#                                       release build, which is made: that is what people install
# Exit code 77: no qemu, no kernel to be had, or not root.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
build=$(realpath "$1")
shift
package=linux-image-cloud-amd64
base=$(dirname "$build")/kernel61
limit=${TIERLOG_KERNEL61_SECONDS:-1500}

skip() {
  echo "skipped: $1"
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "needs root"
virtiofsd=/usr/lib/qemu/virtiofsd
for program in qemu-system-x86_64 busybox cpio "$virtiofsd"; do
  command -v "$program" >/dev/null || skip "$program is missing (scripts/install-deps --full)"
done

unit=
if [ "$*" = unit ]; then
  [ -x /lib/systemd/systemd ] || skip "systemd is missing (scripts/install-deps --full)"
  unit=yes
  source=$(realpath "$here/../..")
  build=$source/build/release
  { (cd "$source" && cmake --preset release) && cmake --build "$build" --target tierlogd tierlog tierlog-cni; } >"$source/build/unit.log" 2>&1 ||
    { tail -n 30 "$source/build/unit.log"; exit 1; }
fi

# The kernel is unpacked, never installed: this machine's boot is not touched.
if [ ! -e "$base/complete" ]; then
  rm -rf "$base"
  mkdir -p "$base"
  image=$(apt-cache depends $package | awk '/Depends: linux-image/ { print $2; exit }')
  (cd "$base" && apt-get download "$image") >"$base/log" 2>&1 || skip "$package cannot be fetched: $(tail -n 1 "$base/log")"
  dpkg -x "$base"/linux-image*.deb "$base/root"
  depmod -b "$base/root" "$(ls "$base/root/lib/modules")"
  touch "$base/complete"
fi
version=$(ls "$base/root/lib/modules")
modules=$base/root/lib/modules/$version

work=$(mktemp -d "${TMPDIR:-/tmp}/tierlog-kernel61.XXXXXX")
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/initrd"/{bin,dev,proc,sys,low,top,new,modules} "$work/out"
cp "$(command -v busybox)" "$work/initrd/bin/busybox"
# In the order in which they need each other.
for name in virtio_pci virtiofs overlay; do
  while read -r file; do
    [ -n "$file" ] || continue
    target=$(printf '%02d-%s' "$(ls "$work/initrd/modules" | wc -l)" "$(basename "$file")")
    ls "$work/initrd/modules" | grep -- "-$(basename "$file")\$" >/dev/null || cp "$file" "$work/initrd/modules/$target"
  done < <(modprobe -d "$base/root" -S "$version" --show-depends "$name" | awk '/^insmod/ { print $2 }')
done
install -m 755 "$here/init" "$work/initrd/init"
install -m 755 "$here/inside.sh" "$here/unit.sh" "$work/"
if [ -n "$unit" ]; then
  cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/package" -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip \
    >"$work/cpack.log" 2>&1 || { cat "$work/cpack.log"; exit 1; }
  mv "$work"/package/*.deb "$work/tierlog.deb"
fi
printf '%s\n' "$@" >"$work/programs"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd.gz"

"$virtiofsd" --socket-path="$work/fs.sock" -o source=/ -o sandbox=chroot -o cache=auto -o xattr >"$work/virtiofsd.log" 2>&1 </dev/null &
server=$!
for _ in $(seq 100); do [ -S "$work/fs.sock" ] && break || sleep 0.1; done
# Emulated unless asked otherwise: inside other virtual machines KVM may be there and hang.
accelerate=(-accel tcg,thread=multi -cpu max)
[ "${TIERLOG_KERNEL61_ACCEL:-}" = kvm ] && accelerate=(-accel kvm -cpu host,-arch-capabilities)
timeout "$limit" qemu-system-x86_64 "${accelerate[@]}" -smp 2 -m 3G -nodefaults -no-reboot -display none -serial stdio \
  -object memory-backend-memfd,id=mem,size=3G,share=on -numa node,memdev=mem \
  -chardev socket,id=fs,path="$work/fs.sock" -device vhost-user-fs-pci,chardev=fs,tag=host \
  -kernel "$base/root/boot/vmlinuz-$version" -initrd "$work/initrd.gz" \
  -append "console=ttyS0 quiet panic=-1 tierlog.build=$build tierlog.work=$work tierlog.modules=$modules" \
  </dev/null | sed -u 's,\r,,' | tee "$work/console" || true
result=$(sed -n 's/^KERNEL61-RESULT //p' "$work/console" | tail -n 1)
[ -n "$result" ] || { tail -n 5 "$work/virtiofsd.log"; echo "the machine ended without a result (within $limit s)"; exit 1; }
exit "$result"
