#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures busbar beside nats-server, redis, mosquitto, ZeroMQ's proxies and a bare epoll broker;
# docs/benchmarks.md says how. Everything stays on this machine and ends by itself.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: peers.sh [OPTION]... [ROW]...
  --list        the rows
  --reps N      repetitions (5)
  --quick       one repetition, less patience with a busy machine: about two minutes
  --table FILE  write the table there (peers.md in the build directory)
  --raw FILE    write every run there (peers.tsv in the build directory)
  --build DIR   build directory (build/bench)
  --perf FILE   record a profile of busbard in the one row named, show it, measure nothing
EOF
}

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=$top/build/bench
reps=5
patience=()
table=
raw=
perf=
rows=()

while [[ $# -gt 0 ]]; do
    case $1 in
    --list) sed -n 's/^\([^#|][^|]*\)|\([^|]*\)|.*/\1\2/p' "$here/rows.txt" && exit ;;
    --reps) reps=$2 && shift ;;
    --quick) reps=1 patience=(tries=3) ;;
    --table) table=$2 && shift ;;
    --raw) raw=$2 && shift ;;
    --build) build=$2 && shift ;;
    --perf) perf=$2 && shift ;;
    --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
    *) rows+=("$1") ;;
    esac
    shift
done
table=${table:-$build/peers.md}
raw=${raw:-$build/peers.tsv}

# The distinct runs of the rows asked for, in their order: a run that several rows share is made once.
list_runs() {
    awk -F'|' -v wanted=" ${rows[*]} " -v only_ours="${perf:+1}" '
        function trim(s) { gsub(/^ +| +$/, "", s); return s }
        /^(#|$)/ || (wanted !~ /^ *$/ && index(wanted, " " trim($1) " ") == 0) { next }
        { ours = trim($7); peer = trim($8) }
        !seen[ours]++ { print ours }
        !only_ours && !seen[peer]++ { print peer }' "$here/rows.txt"
}

run() {
    local words
    read -r -a words <<<"$1"
    shift
    timeout 120 "$build/tests/bench/bench_peers" "${words[@]}" busbard="$build/broker/busbard" "$@"
}

mapfile -t runs < <(list_runs)
for row in "${rows[@]}"; do
    grep -q "^$row *|" "$here/rows.txt" || { echo "peers.sh: no row $row (--list)" >&2 && exit 2; }
done

"$top/tools/install-packages.sh" build bench
cmake -S "$top" -B "$build" --preset release -DBUSBAR_BUILD_BENCH=ON >/dev/null
cmake --build "$build" --target busbard bench_peers >/dev/null
ulimit -n "$(ulimit -Hn)"

if [[ -n $perf ]]; then
    [[ ${#rows[@]} -eq 1 ]] || { usage >&2 && exit 2; }
    command -v perf >/dev/null || { echo "peers.sh: --perf needs the package linux-perf" >&2 && exit 1; }
    run "${runs[0]}" perf="$(realpath -m "$perf")" sample_ms=2000
    perf report -i "$perf" --stdio --no-children --percent-limit 0.5 --sort dso,symbol 2>/dev/null | grep -v '^$'
    exit
fi

: >"$raw"
for ((rep = 1; rep <= reps; rep++)); do
    for one in "${runs[@]}"; do
        if figures=$(run "$one" "${patience[@]}"); then
            printf '%s\t%s\t%s\n' "$rep" "$one" "$figures" >>"$raw"
        else
            echo "peers.sh: failed: $one" >&2
        fi
    done
    echo "repetition $rep of $reps is done" >&2
done
awk -v wanted="${rows[*]:+ ${rows[*]} }" -v busy=0.3 -f "$here/table.awk" "$here/rows.txt" "$raw" >"$table"
cat "$table"
