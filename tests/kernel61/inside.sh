#!/bin/bash
# The rest of the way up, then the tests.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
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
modprobe -a br_netfilter veth bridge nf_tables nft_ct nft_log nft_limit nft_objref nft_counter nft_chain_nat nft_masq nf_conntrack_netlink nfnetlink_log nf_log_syslog 2>/dev/null
echo "kernel $(uname -r)"
code=0
while IFS=: read -r program filter; do
  echo "== $program ${filter:-all}"
  (cd / && timeout 600 "$BUILD/tests/$program" --gtest_brief=1 ${filter:+--gtest_filter="$filter"}) </dev/null 2>&1 || code=1
done <"$WORK/programs"
echo "KERNEL61-RESULT $code"
sync
/bin/busybox poweroff -f
