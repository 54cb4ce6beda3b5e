# Sourced by ./quickstart: real connections between the pods of the lab, and the database they end up in.

# Two ports nobody used before this run.
fresh=$((20000 + RANDOM % 10000))
fresh_other=$((fresh + 1))

# from, to, port, what the policies are for; each is one TCP connection.
attempts=(
  "tenant-01/api      tenant-01/db    5432         allowed: the database's own client"
  "tenant-02/web      tenant-01/db    5432         denied by tenant-01-restrict, after Pass in tier security"
  "tenant-02/web      tenant-01/db    $fresh       denied on a port of this run"
  "tenant-02/web      tenant-01/api   $fresh_other denied on another port of this run"
)
explained_pair="--from tenant-02/web --to tenant-01/db --port 5432"

address_of() {
  sqlite3 -readonly "$lab_database" \
    "SELECT json_extract(addresses, '\$[0]') FROM endpoints WHERE namespace || '/' || name = '$1';"
}

# A listener for each destination, so that what is allowed really connects.
listen() {
  local from to port text
  printf '%s\n' "${attempts[@]}" | awk '{ print $2, $3 }' | sort -u | while read -r to port; do
    tierlog lab exec --lab "$lab" "$to" -- ncat --listen --keep-open "$port" </dev/null >/dev/null 2>&1 &
  done
  sleep 1
}

try() {
  local from=$1 to=$2 port=$3 result=denied
  timeout 20 tierlog lab exec --lab "$lab" "$from" -- nc -z -w1 "$(address_of "$to")" "$port" \
    </dev/null >/dev/null 2>&1 && result=connected
  printf '  %-16s -> %-16s %5s/tcp  %s\n' "$from" "$to" "$port" "$result" >&2
}

send_traffic() {
  say "traffic: ${#attempts[@]} connections"
  lab_database=/run/tierlog-lab/$lab/flows.db
  lab_socket=/run/tierlog-lab/$lab/tierlogd.sock
  listen
  local line from to port text pids=()
  for line in "${attempts[@]}"; do
    read -r from to port text <<<"$line"
    try "$from" "$to" "$port" &
    pids+=($!)
  done
  wait "${pids[@]}"
}

# All that the kernel reported until now is in the database when this returns.
flush() {
  local answer
  answer=$(printf '{"v":1,"op":"flush"}\n' | timeout 20 ncat -U "$lab_socket")
  case $answer in
    *'"ok":true'*) ;;
    *)
      say "tierlogd could not write down what it saw: $answer"
      return 1
      ;;
  esac
}

keep_database() {
  rm -f "$out/flows.db"
  sqlite3 -readonly "$lab_database" "VACUUM INTO '$out/flows.db';"
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
  : >"$out/received.jsonl"
  tierlog lab exec --lab "$lab" node -- node "$PWD/$out/receiver/receiver.mjs" --port 24224 --seconds 120 \
    </dev/null >"$out/received.jsonl" 2>"$out/receiver.log" &
}
