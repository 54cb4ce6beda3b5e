#!/usr/bin/env bash
# Builds the fuzzers (preset fuzz, clang) and lets each look for a while. What it finds that is new goes to
# build/fuzz/found/TARGET, and the next run begins with it; a crash, a hang or a leak fails and names the input.
#   run.sh [TARGET…]      TIERLOG_FUZZ_SECONDS: how long each one looks (20)
# Exit code 77: no clang.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${TIERLOG_FUZZ_SECONDS:-20}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(policies selector cni cases answers)

if ! command -v clang++-14 >/dev/null; then
  echo "skipped: no clang++-14 (scripts/install-deps --full)"
  exit 77
fi
mkdir -p build/fuzz
log=build/fuzz/build.log
if ! { cmake --preset fuzz && cmake --build --preset fuzz; } >"$log" 2>&1; then
  tail -n 30 "$log"
  echo "fuzz: the fuzzers do not build; above is the end of $log"
  exit 1
fi
failed=0
for target in "${targets[@]}"; do
  found=build/fuzz/found/$target
  mkdir -p "$found"
  out=build/fuzz/$target.log
  code=0
  # The first folder gets what is new. A slow machine needs patience: 25 s for one input is a hang on any.
  "build/fuzz/tests/fuzz_$target" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -print_final_stats=1 \
    -verbosity=0 -artifact_prefix="$found/" "$found" "tests/fuzz/corpus/$target" >"$out" 2>&1 || code=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out")
  if [ "$code" -ne 0 ]; then
    tail -n 40 "$out"
    echo "fuzz: $target failed (exit code $code); the input is in $found"
    failed=1
  elif [ "${runs:-0}" -lt 100 ]; then
    echo "fuzz: $target ran ${runs:-0} inputs in $seconds s; that looks at nothing"
    failed=1
  else
    echo "fuzz: $target: $runs inputs, $(sed -n 's/^stat::new_units_added: *//p' "$out") of them new, none did harm"
  fi
done
exit "$failed"
