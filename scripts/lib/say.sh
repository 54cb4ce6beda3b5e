# Sourced by ./test and ./quickstart: progress on stderr with the seconds since the start.
say() { printf '[%4d s] %s\n' "$SECONDS" "$*" >&2; }

# run_logged LOG TEXT COMMAND…: runs it with its output in LOG, says TEXT and how far a build is every ten
# seconds. When it fails, shows the end of LOG (of a build: from the first failure on) and returns its code.
run_logged() {
  local log=$1 text=$2 code=0 last=
  shift 2
  mkdir -p "$(dirname "$log")"
  say "$text"
  "$@" >"$log" 2>&1 </dev/null &
  local child=$! waited=0
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    waited=$((waited + 1))
    if [ $((waited % 50)) -eq 0 ]; then
      last=$(tail -n 1 "$log" | grep -o '^\[[0-9]*/[0-9]*\]' || true)
      say "$text ${last:-…}"
    fi
  done
  wait "$child" || code=$?
  [ "$code" -eq 0 ] && return 0
  if grep -q '^FAILED: ' "$log"; then
    grep -A 30 -m 3 '^FAILED: ' "$log" | cut -c 1-300 >&2
  else
    tail -n 30 "$log" >&2
  fi
  say "$text: failed (exit $code); the whole output is in $log"
  return "$code"
}
