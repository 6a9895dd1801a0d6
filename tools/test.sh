#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, then builds and checks everything in stages. A stage that fails does not stop
# the others. The last line is `N passed, N failed`; the exit code is 0 when nothing failed.
#
#   tools/test.sh [stage...]     gcc clang asan tsan fuzz lint; default: all
#
# Logs and build trees are in build/. FUZZ_SECONDS sets the time for each fuzz target (5).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

readonly stages=(gcc clang asan tsan fuzz lint)
readonly logs=$PWD/build/log
jobs=$(nproc)
passed=0
failed=0

# tally WHAT RESULT: count one check; RESULT is its exit code.
tally()
{
    if [[ $2 -eq 0 ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# quiet NAME COMMAND...: output to a log, of which the end is shown when the command fails.
quiet()
{
    local log=$logs/${1//[^a-z0-9-]/_}.log
    shift
    "$@" >"$log" 2>&1 && return 0
    local result=$?
    tail -n 60 "$log"
    echo "(the whole log: $log)"
    return "$result"
}

# check NAME COMMAND...: one check, counted.
check()
{
    quiet "$@"
    tally "$1" $?
}

configure_and_build()
{
    # Configured once: the build does it again by itself when it must, and CMake writes other rules the second time.
    [[ build/$1/build.ninja -nt CMakePresets.json ]] || cmake --preset "$1" || return
    cmake --build --preset "$@" -j "$jobs" -- -k 0
}

# build PRESET [CMAKE BUILD OPTION...]: counted only when it fails; it is not a test.
build()
{
    quiet "$1-build" configure_and_build "$@" && return 0
    tally "$1 build" 1
    return 1
}

# count_tests LOG: "PASSED FAILED" of a verbose ctest run. A Criterion program counts as its tests, any
# other program as one.
count_tests()
{
    awk '
        /^[0-9]+: .*Tested: [0-9]+ \| Passing: [0-9]+/ {
            n = $0; sub(/:.*/, "", n)
            line = $0; sub(/.*Tested: /, "", line); split(line, f, /[^0-9]+/)
            tested[n] = f[1]; passing[n] = f[2]
        }
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
            n = $0; sub(/.*Test +#/, "", n); sub(/:.*/, "", n)
            if ($0 ~ /\*\*\*Skipped/) { next } # the machine cannot run it, and the log says why
            ok = $0 ~ / Passed +[0-9.]+ sec/
            good = n in passing ? passing[n] : ok
            bad = n in passing ? tested[n] - passing[n] : !ok
            passed += good; failed += (!ok && bad == 0) ? 1 : bad
        }
        END { print passed + 0, failed + 0 }' "$1"
}

# show_failed_tests LOG: what the failed tests of a verbose ctest run printed.
show_failed_tests()
{
    local line number
    grep -E '^ *[0-9]+/[0-9]+ Test .*\*\*\*|^No tests were found' "$1" | while read -r line; do
        echo "$line"
        number=${line#*#}
        grep -E "^${number%%:*}: " "$1" | grep -vE '^[0-9]+: (Test timeout|Working Dir)' | tail -n 40
    done
}

# run_tests PRESET [CTEST OPTION...]: every test is counted; finding no test is a failure.
run_tests()
{
    local log=$logs/$1-ctest.log good bad
    ctest --test-dir "build/$1" -V -j "$jobs" --no-tests=error "${@:2}" >"$log" 2>&1
    local result=$?
    read -r good bad < <(count_tests "$log")
    if [[ $result -ne 0 && $bad -eq 0 ]]; then
        bad=1
    fi
    show_failed_tests "$log"
    echo "$good tests passed, $bad failed"
    passed=$((passed + good))
    failed=$((failed + bad))
}

# sanitized PRESET [CTEST OPTION...]: run_tests with the reports of sanitizers in files. Criterion passes a
# test that leaks, and a daemon's output may be read by nobody: a report is a failure. (That of the undefined
# behaviour sanitizer goes to stderr, as gcc has it, and ends the program.)
sanitized()
{
    local reports=$PWD/build/$1/reports report
    rm -rf "$reports"
    mkdir -p "$reports"
    export ASAN_OPTIONS=log_path=$reports/asan:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export TSAN_OPTIONS=log_path=$reports/tsan:second_deadlock_stack=1
    if [[ -e tests/race/tsan.supp ]]; then
        TSAN_OPTIONS+=:suppressions=$PWD/tests/race/tsan.supp
    fi
    run_tests "$@"
    unset ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS
    for report in "$reports"/*; do
        [[ -e $report ]] || continue
        head -n 60 "$report"
        tally "sanitizer report $report" 1
    done
}

stage_gcc()
{
    build dev && run_tests dev
}

stage_clang()
{
    build clang
}

stage_asan()
{
    build asan && sanitized asan
}

stage_tsan()
{
    build tsan && sanitized tsan -L tsan
}

# fuzz TARGET: start from the corpus; new inputs and findings stay in the build directory.
fuzz()
{
    local work=$PWD/build/fuzz/work/$1 seconds=${FUZZ_SECONDS:-5}
    mkdir -p "$work/new" "$work/found"
    "build/fuzz/tests/fuzz/fuzz_$1" -verbosity=0 -seed=1 -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="$work/found/" "$work/new" "tests/fuzz/corpus/$1"
}

stage_fuzz()
{
    local source target
    build fuzz --target fuzzers || return
    for source in tests/fuzz/fuzz_*.c; do
        target=$(basename "$source" .c)
        check "fuzz-${target#fuzz_}" fuzz "${target#fuzz_}"
    done
}

stage_lint()
{
    local sources scripts
    mapfile -t sources < <(find bus broker proto tools tests -name '*.[ch]' | sort)
    mapfile -t scripts < <(find tools tests .ci -name '*.sh' -o -path .ci/run | sort)
    check lint-layers /usr/bin/python3 tests/lint/layers.py
    check lint-source /usr/bin/python3 tests/lint/source.py
    check lint-sections /usr/bin/python3 tests/lint/sections.py
    check lint-ledger /usr/bin/python3 tests/lint/ledger.py
    check lint-format clang-format-14 --dry-run -Werror "${sources[@]}"
    check lint-shellcheck shellcheck "${scripts[@]}"
    build clang || return
    check lint-headers bash tests/lint/headers.sh build/clang
    check lint-symbols bash tests/lint/symbols.sh build/clang
    check lint-circles /usr/bin/python3 tests/lint/circles.py build/clang
    check lint-tidy /usr/bin/python3 tests/lint/tidy.py build/clang "$jobs"
}

main()
{
    local stage start
    [[ $# -gt 0 ]] || set -- "${stages[@]}"
    for stage in "$@"; do
        if [[ " ${stages[*]} " != *" $stage "* ]]; then
            echo "no stage $stage; there are: ${stages[*]}" >&2
            exit 2
        fi
    done
    mkdir -p "$logs"
    quiet packages tools/install-packages.sh build test || tally packages 1
    for stage in "$@"; do
        echo "== $stage"
        start=$SECONDS
        "stage_$stage"
        echo "== $stage: $((SECONDS - start)) s"
    done
    echo "$passed passed, $failed failed"
    [[ $failed -eq 0 ]]
}

main "$@"
