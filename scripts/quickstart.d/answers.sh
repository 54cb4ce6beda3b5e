# Sourced by ./quickstart: what is printed, all of it from the copy of the flow database that stays.

# Prints a command as it can be pasted, then what it says.
show() {
  printf '\n$'
  printf ' %q' "$@" | sed 's/\\ / /g'
  printf '\n'
  timeout 60 "$@"
}

show_answers() {
  local db=$out/flows.db
  show "$bin/tierlog" policies --db "$db"
  show "$bin/tierlog" denied tenant-01-restrict --db "$db"
  # The denied pair's record: the trace below is what was kept of it, not a new evaluation.
  local record
  record=$(sqlite3 -readonly "$db" "SELECT id FROM denied_flows WHERE policy_name = 'tenant-01-restrict' AND rule_index = 2 LIMIT 1")
  show "$bin/tierlog" explain --db "$db" --record "$record"
  show_sqlite "$db"
  show_acknowledged
}

show_sqlite() {
  local query="SELECT max(end_time) AS latest, src_namespace || '/' || src_pod AS source, dst_namespace || '/' || dst_pod AS destination,
  dst_port AS port, policy, rule_index AS rule, sum(verdict_packets) AS packets
FROM denied_flows WHERE policy_name = 'tenant-01-restrict' GROUP BY src_ip, dst_ip, dst_port, rule_id;"
  printf '\n$ sqlite3 -box %s "%s"\n' "$1" "$query"
  sqlite3 -readonly -box "$1" "$query"
  query="SELECT json_extract(value, '\$.direction') AS direction, json_extract(value, '\$.tier') AS tier,
  json_extract(value, '\$.policy') AS policy, json_extract(value, '\$.rule_index') AS rule, json_extract(value, '\$.result') AS result
FROM denied_flows, json_each(trace) WHERE sequence = (SELECT max(sequence) FROM denied_flows WHERE policy_name = 'tenant-01-restrict');"
  printf '\n$ sqlite3 -box %s "%s"\n' "$1" "$query"
  sqlite3 -readonly -box "$1" "$query"
}

# One denied record as the independent receiver took and acknowledged it.
show_acknowledged() {
  if [ -n "$no_receiver" ]; then
    printf '\nThe record as a Forward receiver acknowledged it is left out: %s.\n' "$no_receiver"
    return 0
  fi
  local i line=
  for i in $(seq 1 100); do
    line=$(grep -m 1 '"action":"deny".*"policy_name":"tenant-01-restrict"' "$out/received.jsonl" || true)
    [ -n "$line" ] && break
    sleep 0.1
  done
  if [ -z "$line" ]; then
    say "the receiver got no record of tenant-01-restrict within $((i / 10)) s"
    return 1
  fi
  printf '\nA record as @fluent-org/logger (npm) received and acknowledged it by the Forward protocol:\n'
  printf '%s\n' "$line" | sed 's/,"/, "/g' | fold -s -w 118
}

next_commands() {
  cat <<END

Next, from this folder:
  $bin/tierlog flows --db $out/flows.db --since 1h
  $bin/tierlog rules tenant-01-restrict --db $out/flows.db
  $bin/tierlog explain -f $policies --topology $topology ${explained_pair[*]}
  $bin/tierlog lint $policies
  sqlite3 $out/flows.db "SELECT policy, allowed, denied, logged FROM policy_activity"
END
  if [ "$keep" = yes ]; then
    cat <<END
The node is still up:
  $bin/tierlog lab exec --lab $lab tenant-02/web -- nc -zvw1 $(address_of tenant-01/db) 5432
  $bin/tierlog denied --lab $lab --follow
and ends with:
  $bin/tierlog lab down $lab
END
  else
    echo "  ./quickstart --keep        # the same, and the node stays up to play with"
  fi
}
