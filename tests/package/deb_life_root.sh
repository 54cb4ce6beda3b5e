# Inside the namespaces: mounts a copy of the Debian that is thrown away, and goes there.
#   deb_life_root.sh ROOT WORK SCRIPT
lower=$1 work=$2 script=$3
mount -t tmpfs tmpfs "$work"/out
mkdir "$work"/out/{upper,work,merged}
root=$work/out/merged
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/out/upper,workdir=$work/out/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
for device in null zero random urandom tty; do
  [ -e "$root/dev/$device" ] || touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
cp "$work/tierlog.deb" "$root/tmp/tierlog.deb"
cp "$script" "$root/tmp/inside.sh"
ip link set lo up
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
  bash -euo pipefail /tmp/inside.sh
