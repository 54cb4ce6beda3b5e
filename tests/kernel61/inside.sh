#!/bin/bash
# The rest of the way up, then the tests.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
if [ "$(cat "$WORK/programs")" = unit ]; then
  mount -t proc proc /proc
  mount -t tmpfs run /run
  # /tmp is emptied when systemd comes up.
  cp "$WORK/unit.sh" /usr/local/lib/tierlog-unit.sh
  dpkg -i --force-depends --force-unsafe-io "$WORK/tierlog.deb" >"/tmp/dpkg" 2>&1 || cat /tmp/dpkg
  printf '[Unit]\nRequires=basic.target tierlog-check.service\nAfter=basic.target\nAllowIsolate=yes\n' \
    >/etc/systemd/system/tierlog-check.target
  printf '[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/bash /usr/local/lib/tierlog-unit.sh\n' \
    >/etc/systemd/system/tierlog-check.service
  # Emulated it needs longer.
  mkdir -p /etc/systemd/system/tierlogd.service.d
  printf '[Service]\nTimeoutStartSec=300\nTimeoutStopSec=120\n' \
    >/etc/systemd/system/tierlogd.service.d/emulated.conf
  # What a machine of its own would need, and this one waits for.
  for other in systemd-hwdb-update systemd-udevd systemd-udev-trigger systemd-journal-catalog-update \
    systemd-timesyncd systemd-modules-load systemd-random-seed systemd-sysusers ldconfig apparmor networking \
    kmod-static-nodes keyboard-setup console-setup modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}; do
    ln -sf /dev/null "/etc/systemd/system/$other.service"
  done
  for mount in dev-hugepages dev-mqueue sys-kernel-debug sys-kernel-tracing sys-kernel-config sys-fs-fuse-connections; do
    ln -sf /dev/null "/etc/systemd/system/$mount.mount"
  done
  exec /lib/systemd/systemd --unit=tierlog-check.target --show-status=no --log-level=warning
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
# What the kernel would load one by one under the first test.
modprobe -a br_netfilter veth bridge tun nf_tables nft_ct nft_log nft_limit nft_objref nft_counter nft_chain_nat nft_masq nf_conntrack_netlink nfnetlink_log nf_log_syslog 2>/dev/null
echo "kernel $(uname -r)"
code=0
while IFS=: read -r program filter; do
  echo "== $program ${filter:-all}"
  (cd / && timeout 600 "$BUILD/tests/$program" --gtest_brief=1 ${filter:+--gtest_filter="$filter"}) </dev/null 2>&1 || code=1
done <"$WORK/programs"
echo "KERNEL61-RESULT $code"
sync
/bin/busybox poweroff -f
