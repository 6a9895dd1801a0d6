#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian 12 to events on the wire: installs what the build needs (as root), builds, starts a broker
# in a temporary directory, sends events over tcp and ipc and shows them, and stops the broker. Nothing outside
# build/ and the temporary directory is written; a second run finds everything done.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly busbar=build/release/tools/busbar
readonly busbard=build/release/broker/busbard
work=
pids=()

# Whatever happens, what was started is stopped and waited for.
clean_up()
{
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    [[ -z $work ]] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step()
{
    printf '\n== %s\n' "$*"
}

# show COMMAND...: print it as a person would type it, then run it.
show()
{
    local word
    printf '$'
    for word in "$@"; do
        word=${word/#$busbar/busbar}
        if [[ $word =~ ^[A-Za-z0-9_./:=-]+$ ]]; then
            printf ' %s' "$word"
        else
            printf " '%s'" "$word"
        fi
    done
    printf '\n'
    "$@"
}

build()
{
    local log=build/quickstart.log
    mkdir -p build
    # Configured once: the build does it again by itself when it must, and CMake writes other rules the second time.
    if ! { { [[ build/release/build.ninja -nt CMakePresets.json ]] || cmake --preset release; } &&
        cmake --build --preset release; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "the build failed; the whole log is $log" >&2
        exit 1
    fi
    tail -n 1 "$log"
}

start_broker()
{
    "$busbard" --listen 'tcp://127.0.0.1:*' --listen "ipc://$work/bus" --ports-file "$work/ports" \
        2>"$work/broker.log" &
    pids+=($!)
    local _
    for _ in {1..200}; do
        [[ -s $work/ports ]] && return
        kill -0 "${pids[0]}" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/broker.log" >&2
    echo "the broker did not start" >&2
    exit 1
}

# exchange URL: three events to a subscriber and back on the screen.
exchange()
{
    local url=$1 got=$work/got ready=$work/ready
    rm -f "$got" "$ready"
    mkfifo "$ready"
    "$busbar" sub 'plant/*' -u "$url" -q -n 3 --timeout 10s --ready-file "$ready" >"$got" &
    local sub=$!
    pids+=("$sub")
    read -r -t 10 _ <>"$ready"
    show "$busbar" pub plant/line1/temp 21.5 -u "$url" --ack routed
    show "$busbar" pub plant/line1/state '{"on":true,"speed":3}' -u "$url" -H shift:early
    show "$busbar" pub plant/line2/note 'belt 2 was oiled' -u "$url"
    wait "$sub"
    echo "The subscriber of 'plant/*' got:"
    sed 's/^/    /' "$got"
    [[ $(wc -l <"$got") -eq 3 ]]
}

step "packages"
tools/install-packages.sh build
echo "all there"

step "build"
build

step "broker"
work=$(mktemp -d)
start_broker
tcp=$(grep -o '"tcp://[^"]*"' "$work/ports" | head -n 1 | tr -d '"')
ipc=ipc://$work/bus
echo "busbard listens on $tcp and $ipc"

step "events over tcp"
exchange "$tcp"

step "events over ipc"
exchange "$ipc"

step "what the broker still has: the last event as JSON"
show "$busbar" sub 'plant/*' -u "$tcp" -q --from last -n 1 --timeout 10s --json

step "stopped; what next"
cat <<END
Start a broker of your own:     $busbard
In another terminal, listen:    $busbar sub 'plant/*'
and in a third one, speak:      $busbar pub plant/line1/temp 21.5
All tests:                      tools/test.sh
More: README.md, busbar help
END
