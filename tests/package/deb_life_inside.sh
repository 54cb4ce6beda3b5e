# On a fresh Debian with the package's dependencies: a package's whole life. Ends at the first surprise.
fail() {
  echo "FAILED: $*"
  [ ! -s /tmp/tierlogd.log ] || tail -n 20 /tmp/tierlogd.log
  exit 1
}
# Read to its end: who writes to a reader that has gone fails, and with it the pipe.
has_table() { nft list tables 2>/dev/null | grep -x 'table inet tierlog' >/dev/null; }
files_of_ours() {
  find / -xdev \( -path /proc -o -path /sys -o -path /tmp \) -prune -o -iname '*tierlog*' -print
  find /run /var/lib -iname '*tierlog*'
}
# As deploy/tierlogd.service does: group, umask and capabilities.
start() {
  (
    umask 0027
    exec setpriv --regid tierlog --clear-groups --inh-caps=-all --no-new-privs \
      --bounding-set=-all,+net_admin,+dac_read_search /usr/sbin/tierlogd >>/tmp/tierlogd.log 2>&1
  ) &
  for _ in $(seq 100); do
    tierlog status >/tmp/status 2>&1 && return
    kill -0 $! 2>/dev/null || fail "tierlogd ended at its start"
    sleep 0.1
  done
  fail "tierlogd does not answer: $(cat /tmp/status)"
}
# Nothing listens on the node: what is not dropped is refused at once.
is_dropped() {
  local code=0
  timeout 1 ip netns exec web bash -c ': >/dev/tcp/10.244.1.1/80' 2>/dev/null || code=$?
  [ "$code" = 124 ]
}
pid_of_daemon() { head -n 1 /run/tierlog/tierlogd.sock.lock; }
# What a runtime does: the plugins of the chain one after the other, each with the result of those before.
cni() {
  local common='"cniVersion":"1.0.0","name":"pods"'
  export CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
  export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=$2"
  local ipam='"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}'
  if [ "$1" = ADD ]; then
    result=$(echo "{$common,\"type\":\"ptp\",$ipam}" | /usr/lib/cni/ptp)
    echo "{$common,\"type\":\"tierlog-cni\",\"prevResult\":$result}" | /usr/lib/cni/tierlog-cni
  else
    echo "{$common,\"type\":\"tierlog-cni\"}" | /usr/lib/cni/tierlog-cni
    echo "{$common,\"type\":\"ptp\",$ipam}" | /usr/lib/cni/ptp
  fi
}

echo "install"
dpkg -i /tmp/tierlog.deb >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
[ "$(stat -c '%a %U:%G' /var/lib/tierlog)" = "2750 root:tierlog" ] || fail "$(stat /var/lib/tierlog)"
[ ! -e /run/tierlog ] && ! has_table || fail "something was started"
[ ! -e /etc/systemd/system/multi-user.target.wants/tierlogd.service ] || fail "the unit was enabled unasked"

echo "enforce"
cat >/etc/tierlog/policies/shop.yaml <<'YAML'
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: no-way-out, namespace: shop}
spec: {selector: all(), types: [Egress], egress: [{action: Deny}]}
YAML
mkdir -m 755 /run/tierlog  # RuntimeDirectory=
chgrp tierlog /run/tierlog
start
[ "$(stat -c '%a %U:%G' /var/lib/tierlog/flows.db)" = "640 root:tierlog" ] || fail "$(stat /var/lib/tierlog/flows.db)"
[ "$(stat -c '%a' /var/lib/tierlog/state.db)" = 600 ] || fail "$(stat /var/lib/tierlog/state.db)"
[ "$(stat -c '%a %U:%G' /run/tierlog/tierlogd.sock)" = "660 root:tierlog" ] || fail "$(stat /run/tierlog/tierlogd.sock)"
ip netns add web
cni ADD web >/tmp/added || fail "$(cat /tmp/added) after $result"
is_dropped || fail "the pod got out"
for _ in $(seq 50); do
  tierlog denied no-way-out -o jsonl >/tmp/denied 2>/tmp/notes && [ -s /tmp/denied ] && break
  sleep 0.1
done
grep -q '"src_pod":"web"' /tmp/denied || fail "no record: $(cat /tmp/denied /tmp/notes)"
setpriv --reuid nobody --regid tierlog --clear-groups sqlite3 /var/lib/tierlog/flows.db \
  "SELECT count(*) FROM denied_flows" >/tmp/count || fail "the group cannot read the records"
[ "$(cat /tmp/count)" -gt 0 ] || fail "no denied flow for plain sqlite3"

echo "upgrade"
first=$(pid_of_daemon)
dpkg -i /tmp/tierlog.deb >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
kill -0 "$first" || fail "an upgrade ended the daemon of before"
has_table || fail "an upgrade took the rules out"

echo "remove"
dpkg -r tierlog >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
[ ! -e "/proc/$first/exe" ] || fail "the daemon runs on"
grep -q 'stay in force' /tmp/dpkg || fail "remove does not say that rules stay"
has_table || fail "remove opened the node"
is_dropped || fail "the pod got out after remove"
[ -s /var/lib/tierlog/flows.db ] && [ -e /etc/tierlog/tierlogd.yaml ] || fail "remove took data or settings"

echo "install again, from what remained"
dpkg -i /tmp/tierlog.deb >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
start
tierlog endpoints -o jsonl 2>/dev/null | grep '"name":"web"' >/dev/null || fail "the pod is not known any more"
ip netns add other
cni ADD other >/tmp/added || fail "$(cat /tmp/added) after $result"
cni DEL other || fail "DEL"
ip netns delete other
tierlog endpoints -o jsonl 2>/dev/null | grep '"name":"other"' >/dev/null && fail "a deleted pod is still known"
tierlogd --remove >/tmp/removed 2>&1 && fail "--remove beside a running daemon"
kill -TERM "$(pid_of_daemon)"
wait

echo "purge"
dpkg -P tierlog >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
is_dropped && fail "rules outlived purge"
nft list tables 2>/dev/null | grep tierlog && fail "purge left the rules"
getent group tierlog >/dev/null && fail "purge left the group"
left=$(files_of_ours)
[ -z "$left" ] || fail "purge left: $left"
echo "install, enforce, upgrade, remove, purge: all as it should be"
