#!/bin/bash
# Inside the virtual machine, under systemd as its first process: the package's unit as it is shipped, from its
# first start to its removal. What it says goes to the machine's console.
exec >/dev/ttyS0 2>&1 </dev/null
failures=0
check() { # what, command…
  local what=$1
  shift
  if "$@" >/tmp/said 2>&1; then
    echo "ok      $what"
  else
    failures=$((failures + 1))
    echo "FAILED  $what: $*"
    head -n 20 /tmp/said
  fi
}
is() { [ "$1" = "$2" ] || { echo "is \"$1\", expected \"$2\""; return 1; }; }
show() { systemctl show --value -p "$1" tierlogd; }
soon() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done; "$@"; }
status_of() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(show MainPID)/status"; }
has_another_pid() { [ "$(show MainPID)" != "$1" ] && [ "$(show ActiveState)" = active ]; }
has_ended() { [ "$(show ActiveState)" = failed ]; }
tables() { nft list tables 2>/dev/null | grep -c ' tierlog'; }

echo "systemd $(systemctl --version | awk 'NR == 1 { print $2 }'), kernel $(uname -r), state $(systemctl is-system-running)"
check "the package starts nothing by itself" is "$(show ActiveState)" inactive
check "start waits until it is ready" systemctl start tierlogd
check "it is active" is "$(show ActiveState)" active
check "its status says what is in force" grep -q ' in force' <(show StatusText)
check "it answers" tierlog status
check "the rules are there" test "$(tables)" -gt 0
check "no privileges to be gained" is "$(status_of NoNewPrivs)" 1
check "system calls are filtered" is "$(status_of Seccomp)" 2
check "two capabilities are left" is "$(status_of CapEff)" 0000000000001004
# Without CAP_SETPCAP it cannot empty that set; with NoNewPrivs nothing comes out of it.
check "and only those of the unit could have been" is "$(status_of CapBnd)" 000000c000001004
check "its folder" is "$(stat -c '%U:%G %a' /var/lib/tierlog)" "root:tierlog 2750"
check "readers come in by their group" is "$(stat -c '%G %a' /run/tierlog/tierlogd.sock)" "tierlog 660"
check "connection tracking counts" is "$(cat /proc/sys/net/netfilter/nf_conntrack_acct)" 1

printf 'apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: first}\nspec: {ingress: [{action: Deny}]}\n' \
  >/etc/tierlog/policies/first.yaml
check "reload" systemctl reload tierlogd
check "a new policy is in force" soon grep -q '1 polic' <(show StatusText)

before=$(show MainPID)
kill -KILL "$before"
check "killed, it comes again" soon has_another_pid "$before"
check "it was restarted once" is "$(show NRestarts)" 1
check "its rules are adopted" grep -q 'table=adopted' <(journalctl -u tierlogd --no-pager)

touch /run/tierlog/left-by-a-plugin
check "stop" systemctl stop tierlogd
check "it ended well" is "$(show Result)" success
check "the rules stay" test "$(tables)" -gt 0
check "so does what lies in its folder" test -e /run/tierlog/left-by-a-plugin
check "start again" systemctl start tierlogd
check "and stop" systemctl stop tierlogd

echo 'nonsense: 1' >>/etc/tierlog/tierlogd.yaml
systemctl start tierlogd >/dev/null 2>&1
check "wrong settings end it" soon has_ended
check "with the exit code of wrong settings" is "$(show ExecMainStatus)" 2
check "and are not tried again" is "$(show NRestarts)" 0
sed -i '/^nonsense/d' /etc/tierlog/tierlogd.yaml
check "--remove takes the rules out" tierlogd --remove
check "none is left" is "$(tables)" 0
[ "$failures" -eq 0 ] || journalctl -u tierlogd --no-pager | tail -n 40
echo "KERNEL61-RESULT $((failures > 0))"
sync
/bin/busybox poweroff -f
