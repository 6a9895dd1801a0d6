#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two builds of busbar in one interleaved run: what a change does to the rows of docs/benchmarks.md.
#
#   compare.sh BEFORE AFTER [--reps N] [RUN]...     build directories with the benchmark; a run as in rows.txt, all without one
#
# Prints for each run and figure the medians of both and the median of the ratios AFTER / BEFORE of the repetitions.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
before=$1
after=$2
shift 2
reps=5
runs=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --reps) reps=$2 && shift ;;
    *) runs+=("$1") ;;
    esac
    shift
done
if [[ ${#runs[@]} -eq 0 ]]; then
    mapfile -t runs < <(awk -F'|' '/^(#|$)/ { next } { gsub(/^ +| +$/, "", $7); if (!seen[$7]++) print $7 }' "$here/rows.txt")
fi
ulimit -n "$(ulimit -Hn)"

measure() { # BUILD RUN
    local words
    read -r -a words <<<"$2"
    timeout 120 "$1/tests/bench/bench_peers" "${words[@]}" busbard="$1/broker/busbard" tries=3 || true
}

for ((rep = 1; rep <= reps; rep++)); do
    for run in "${runs[@]}"; do
        printf '%s\t%s\t%s\n' "$run" before "$(measure "$before" "$run")"
        printf '%s\t%s\t%s\n' "$run" after "$(measure "$after" "$run")"
    done
done | awk -F'\t' '
    function median(list, n,    i, j, t) {
        for (i = 2; i <= n; i++) { t = list[i]; for (j = i - 1; j > 0 && list[j] > t; j--) list[j + 1] = list[j]; list[j + 1] = t }
        return n ? list[int((n + 1) / 2)] : "-"
    }
    BEGIN {
        split("published/s received/s broker-us publisher-us subscriber-us p50-us p99-us rss-KiB client-KiB connect-ms idle-ms/s", names, " ")
    }
    {
        if (!($1 in seen)) { seen[$1] = 1; order[++n_runs] = $1 }
        n[$1, $2]++
        for (i = 3; i <= NF; i++) value[$1, $2, i - 2, n[$1, $2]] = $i
        if (NF - 2 > fields) fields = NF - 2
    }
    END {
        for (r = 1; r <= n_runs; r++) {
            run = order[r]
            printf "%-52s", run
            for (i = 1; i <= fields && i in names; i++) {
                k = 0
                for (j = 1; j <= n[run, "after"]; j++) {
                    b = value[run, "before", i, j]; a = value[run, "after", i, j]
                    if (b + 0 > 0 && a + 0 > 0) { k++; ratio[k] = a / b; befores[k] = b; afters[k] = a }
                }
                if (k) printf "  %s %.3f (%s -> %s)", names[i], median(ratio, k), median(befores, k), median(afters, k)
            }
            printf "\n"
        }
    }'
