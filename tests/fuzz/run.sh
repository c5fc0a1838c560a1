#!/bin/sh
# Runs every program of this folder for FUZZ_SECONDS (30), and says how often each was executed and whether it crashed.
#
#   tests/fuzz/run.sh [program...]
#
# Stops by itself. Works with the compiler that builds the rest: without sanitizers, which need a nightly one and find
# little in code without `unsafe`; overflows and failed assertions are crashes here. What is found is left in
# <target>/fuzz/found/<program>/; what is learnt on the way in <target>/fuzz/learnt, from where a later run goes on.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "$*"; }
version=0.13.2
seconds=${FUZZ_SECONDS:-30}
out=${CARGO_TARGET_DIR:-target}/fuzz
case $out in /*) ;; *) out=$PWD/$out ;; esac

if ! cargo fuzz --version >/dev/null 2>&1; then
    PATH=$PWD/.tools/bin:$PATH
    export PATH
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "fuzz: installing cargo-fuzz $version into .tools/"
        cargo install cargo-fuzz --quiet --locked --version $version --root .tools --target-dir "$out/tools"
    fi
fi
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' tests/fuzz/Cargo.toml)

# One build for all. The lock file is the folder's own.
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir "$out"

all=0 crashes=0
say "executions   crashes  program ($seconds s each)"
for program; do
    mkdir -p "$out/learnt/$program" "$out/found/$program"
    log=$out/$program.log
    status=0
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none --target-dir "$out" "$program" \
        "$out/learnt/$program" "tests/fuzz/corpus/$program" -- -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -artifact_prefix="$out/found/$program/" -print_final_stats=1 >"$log" 2>&1 || status=$?
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    crash=0
    if [ $status != 0 ]; then
        crash=1
        tail -n 25 "$log"
    fi
    [ -n "$executed" ] || executed=0
    all=$((all + executed)) crashes=$((crashes + crash))
    printf '%10d  %8d  %s\n' "$executed" "$crash" "$program"
done
printf '%10d  %8d  in all\n' "$all" "$crashes"
[ "$crashes" = 0 ] || { say "fuzz: what crashed lies in $out/found"; exit 1; }
