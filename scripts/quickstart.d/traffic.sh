# Sourced by ./quickstart: real connections between the pods of the lab, and the database they end up in.

# Ports that differ from run to run: what is printed later was recorded in this one.
fresh=$((20000 + RANDOM % 10000))
listening=$((30000 + RANDOM % 10000))

# from, to, port, what has to come of it, and why. Each is one TCP connection.
attempts=(
  "tenant-01/api         tenant-01/db   5432       connected  its own API may: tenant-01-restrict"
  "tenant-02/web         tenant-01/db   5432       denied     another tenant: tenant-01-restrict"
  "tenant-02/web         tenant-01/db   $fresh     denied     no rule for this port: end of tier platform"
  "monitoring/prometheus tenant-01/db   9100       denied     allowed to leave, not to enter"
  "tenant-02/web         tenant-01/web  $fresh     denied     passed by all tiers down to default-deny"
  "tenant-02/batch       tenant-02/web  8080       denied     quarantine, in the first tier"
  "tenant-01/web         192.0.2.66     443        denied     a blocked address"
  "tenant-02/web         tenant-02/api  8080       connected  a team's own tier and the default one agree"
  "tenant-01/api         203.0.113.9    443        connected  a partner"
  "tenant-02/api         198.51.100.7   $listening connected  tenant-02 may go anywhere"
)
explained_pair=(--from tenant-02/web --to tenant-01/db --port 5432)

# The IPv4 address of ns/pod; an address is one already.
address_of() {
  case $1 in
    */*)
      sqlite3 -readonly "$lab_database" \
        "SELECT json_extract(addresses, '\$[0]') FROM endpoints WHERE namespace || '/' || name = '$1';"
      ;;
    *) echo "$1" ;;
  esac
}

try() {
  local from=$1 to=$2 port=$3 expected=$4 why=$5 result=denied
  timeout 20 tierlog lab exec --lab "$lab" "$from" -- nc -z -w1 "$(address_of "$to")" "$port" \
    </dev/null >/dev/null 2>&1 && result=connected
  printf '         %-21s -> %-13s %5s/tcp  %-9s  %s\n' "$from" "$to" "$port" "$result" "$why" >&2
  [ "$result" = "$expected" ] || {
    say "$from -> $to $port/tcp was $result; the policies say $expected"
    return 1
  }
}

send_traffic() {
  say "traffic: ${#attempts[@]} connections"
  local line from to port expected why pid failed=0 pids=()
  tierlog lab exec --lab "$lab" outside -- nc --listen --keep-open "$listening" </dev/null >/dev/null 2>&1 &
  for _ in $(seq 1 50); do
    tierlog lab exec --lab "$lab" outside -- nc -z -w1 198.51.100.7 "$listening" </dev/null >/dev/null 2>&1 && break
    sleep 0.1
  done
  for line in "${attempts[@]}"; do
    read -r from to port expected why <<<"$line"
    try "$from" "$to" "$port" "$expected" "$why" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return "$failed"
}

# All that the kernel reported until now is in the database when this returns.
flush() {
  local answer
  answer=$(printf '{"v":1,"op":"flush"}\n' | timeout 20 nc -U "$lab_socket" || true)
  case $answer in
    *'"ok":true'*) ;;
    *)
      say "tierlogd could not write down what it saw: ${answer:-no answer}"
      return 1
      ;;
  esac
}

# A copy of the flow index that outlives the lab.
keep_database() {
  rm -f "$out/flows.db"
  sqlite3 -readonly "$lab_database" "VACUUM INTO '$out/flows.db';"
  local found
  found=$(sqlite3 -readonly "$out/flows.db" "SELECT count(*) FROM denied_flows
    WHERE policy_name = 'tenant-01-restrict' AND dst_port = $fresh;")
  [ "$found" -gt 0 ] || {
    say "the database has no denial of port $fresh, which was just denied"
    return 1
  }
}

# The receiver is made ready before the lab, because tierlogd has to be told about it, and started in the lab's node.
prepare_receiver() {
  export_settings=()
  if no_receiver=$(scripts/install-receiver "$out/receiver" 2>&1); then
    no_receiver=
    export_settings=(--set 'exports=[{type: fluentbit, host: 127.0.0.1, port: 24224}]')
  fi
}

start_receiver() {
  [ -z "$no_receiver" ] || return 0
  tierlog lab exec --lab "$lab" node -- node "$PWD/$out/receiver/receiver.mjs" --port 24224 --seconds 120 \
    </dev/null >"$out/received.jsonl" 2>"$out/receiver.log" &
}
