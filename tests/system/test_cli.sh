#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command `busbar` against a real broker: what it prints, and every exit status.
#
#   tests/system/test_cli.sh BUSBAR BUSBARD
set -uo pipefail

readonly busbar=$1 busbard=$2
work=$(mktemp -d)
readonly work
readonly endpoint=ipc://$work/bus
export BUSBAR_URL=$endpoint
broker=
failed=0

# shellcheck disable=SC2317 # called by the trap
clean_up()
{
    local pid
    for pid in $(jobs -p); do
        kill "$pid" 2>/dev/null
    done
    wait
    rm -rf "$work"
}
trap clean_up EXIT

wait_for_file()
{
    local _
    for _ in {1..400}; do
        [[ -s $1 ]] && return 0
        sleep 0.05
    done
    echo "FAILED: $1 did not appear"
    exit 1
}

# wait_for_text FILE TEXT
wait_for_text()
{
    local _
    for _ in {1..400}; do
        grep -qF -- "$2" "$work/$1" && return 0
        sleep 0.05
    done
    has "$1" "$2"
}

start_broker()
{
    rm -f "$work/ports"
    "$busbard" --listen "$endpoint" --ports-file "$work/ports" 2>>"$work/broker.log" &
    broker=$!
    wait_for_file "$work/ports"
}

# stop_broker: with SIGTERM; says its exit status.
stop_broker()
{
    kill "$broker"
    wait "$broker"
}

# is WHAT EXPECTED GOT
is()
{
    if [[ $3 != "$2" ]]; then
        printf 'FAILED: %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3"
        failed=$((failed + 1))
    fi
}

# ends STATUS COMMAND...: run quietly and compare the exit status.
ends()
{
    "${@:2}" >"$work/out" 2>"$work/err" </dev/null
    is "${*:2}: status" "$1" $?
}

# has FILE TEXT
has()
{
    if ! grep -qF -- "$2" "$work/$1"; then
        printf 'FAILED: no %s in:\n' "$2"
        sed 's/^/  /' "$work/$1"
        failed=$((failed + 1))
    fi
}

# subscribe NAME ARGUMENT...: in the background, output in $work/NAME; returns when it is subscribed.
subscribe()
{
    rm -f "$work/ready"
    "$busbar" sub -q --timeout 20s --ready-file "$work/ready" "${@:2}" >"$work/$1" 2>"$work/$1.err" &
    sub=$!
    wait_for_file "$work/ready"
}

# subscribed STATUS: what the last subscriber ends with.
subscribed()
{
    wait "$sub"
    is "subscriber: status" "$1" $?
}

test_command_line()
{
    ends 0 "$busbar" --help
    has out "sub         print the events"
    ends 0 "$busbar" --version
    ends 0 "$busbar" help pub
    has out "--wait-subs N"
    ends 0 "$busbar" sub --help
    ends 2 "$busbar"
    ends 2 "$busbar" nonsense
    ends 2 "$busbar" pub
    ends 2 "$busbar" pub a b c
    ends 2 "$busbar" pub a b --nonsense
    ends 2 "$busbar" pub a b --count 0
    ends 2 "$busbar" pub a b --count=-1
    ends 2 "$busbar" pub a b --text=yes
    ends 2 "$busbar" pub a b --ack nonsense
    has err "none, accepted, routed"
    ends 2 "$busbar" pub a b --lines
    ends 2 "$busbar" pub a b --json --text
    ends 2 "$busbar" pub a b -H nocolon
    ends 2 "$busbar" sub
    ends 2 "$busbar" sub 'a*'
    ends 2 "$busbar" sub a --from nonsense
    ends 2 "$busbar" sub a --raw --json
    ends 2 "$busbar" bench --size 8
    ends 2 "$busbar" completion nonsense
}

test_bad_url()
{
    ends 2 "$busbar" pub a b --url nonsense
    has err "'nonsense': a url begins with tcp:// or ipc://"
    ends 2 "$busbar" sub a --url tcp://127.0.0.1:
    has err "'tcp://127.0.0.1:': "
    BUSBAR_URL="$endpoint,," ends 2 "$busbar" ping
    has err "there is an empty url in the list"
}

test_no_broker()
{
    ends 3 "$busbar" -u "ipc://$work/nobody" --connect-timeout 200ms ping
    has err "ipc://$work/nobody"
    ends 3 "$busbar" pub a b --connect-timeout 200ms --url "ipc://$work/nobody"
}

test_bodies()
{
    subscribe human 'body/+/#' -n 10
    ends 0 "$busbar" pub body/a 21.5
    ends 0 "$busbar" pub body/a -5
    ends 0 "$busbar" pub body/a hello
    ends 0 "$busbar" pub body/a '{"x": [1, null]}'
    ends 0 "$busbar" pub body/a 7 --text
    ends 0 "$busbar" pub body/a '"7"' --json
    ends 0 "$busbar" pub body/a ab --binary
    ends 2 "$busbar" pub body/a '{' --json
    ends 2 "$busbar" pub body/a $'\xff' --text
    printf '[1,\n2]\n' >"$work/file"
    ends 0 "$busbar" pub body/a --file "$work/file"
    ends 1 "$busbar" pub body/a --file "$work/none"
    printf 'esc\033' | "$busbar" pub body/a --all
    printf '\xff' | "$busbar" pub body/a
    subscribed 0
    # shellcheck disable=SC2016 # $binary is a key
    is "human form" 'body/a 21.5
body/a -5
body/a hello
body/a {"x":[1,null]}
body/a 7
body/a 7
body/a {"$binary":"YWI="}
body/a [1,2]
body/a "esc\u001b"
body/a {"$binary":"/w=="}' "$(cat "$work/human")"
}

test_lines()
{
    subscribe raw lines/x --raw -n 4
    printf 'one\n\n{"a":2}\nlast' | "$busbar" pub lines/x --lines --rate 1000
    is "lines: status" 0 $?
    subscribed 0
    is "raw form" 'one||{"a":2}|last' "$(paste -sd '|' "$work/raw")"
}

test_attributes()
{
    subscribe json 'attr/*' --json -n 2
    ends 0 "$busbar" pub attr/a 1 -p -3 --id 42 -H 'unit: C' -Hb:c:d --type app/x -n 2
    subscribed 0
    is "events" 2 "$(wc -l <"$work/json")"
    local text
    for text in '"path":"attr/a"' '"seq":1' '"seq":2' '"priority":-3' '"client_id":42' '"payload_type":"app/x"' \
        '"unit":"C"' '"b":"c:d"' '"payload":1' '"source_time":null' '"source":{"type":"client","id":'; do
        has json "$text"
    done
}

test_from()
{
    seq 5 | "$busbar" pub from/x --lines
    ends 0 "$busbar" sub 'from/*' --from 1 -n 5 --raw --timeout 10s
    is "from 1" "1 2 3 4 5" "$(paste -sd ' ' "$work/out")"
    ends 0 "$busbar" sub 'from/*' --from 4 -n 2 --raw --timeout 10s
    is "from 4" "4 5" "$(paste -sd ' ' "$work/out")"
    ends 0 "$busbar" sub 'from/*' --from last -n 1 --raw --timeout 10s
    is "from last" 5 "$(cat "$work/out")"
    ends 0 "$busbar" sub 'from/*' --from 1h -n 5 --raw --timeout 10s
    ends 0 "$busbar" sub 'from/*' --from 2020-01-01T00:00:00Z -n 5 --raw --timeout 10s
    ends 5 "$busbar" sub 'from/*' --from new -n 1 --timeout 200ms
    ends 5 "$busbar" sub 'from/*' --from 1 -n 6 --idle 300ms --raw
    is "what came before" 5 "$(wc -l <"$work/out")"
    ends 0 "$busbar" sub 'from/*' --idle 200ms
    ends 0 "$busbar" sub 'from/*' --timeout 200ms
    has err "subscribed to 'from/*'"
    ends 5 "$busbar" sub 'from/*' --from 1 --until 9 --timeout 200ms --raw
    has err "before all up to --until 9"
}

test_acks()
{
    ends 0 "$busbar" pub ack/x 1
    ends 0 "$busbar" pub ack/x 1 --ack none
    ends 7 "$busbar" pub ack/x 1 --ack routed
    ends 4 "$busbar" pub ack/x 1 --ack consumed
    # shellcheck disable=SC2016 # the name of a channel
    ends 4 "$busbar" pub '$own/x' 1
    has err "refused"
    ends 2 "$busbar" pub 'a/?' 1
    ends 7 "$busbar" pub ack/x 1 --wait-subs 1 --timeout 200ms
    ends 2 "$busbar" pub ack/x 1 --id "$(head -c 65 /dev/zero | tr '\0' x)"
    head -c 2000000 /dev/zero >"$work/large"
    ends 4 "$busbar" pub ack/x --file "$work/large"
    "$busbar" pub ack/x awaited --wait-subs 1 --ack routed &
    local pub=$!
    subscribe awaited ack/x -n 1 --raw
    wait "$pub"
    is "pub --wait-subs: status" 0 $?
    subscribed 0
    is "awaited event" awaited "$(cat "$work/awaited")"
}

# stdout that cannot be written is a failure, whatever the command.
test_stdout()
{
    ends 0 "$busbar" pub out/x 1
    local words
    for words in "sub out/x --from all --until now -q" "query out/x" "channel ls" status ping help "pub --help" \
        --version "completion bash"; do
        # shellcheck disable=SC2086 # words
        "$busbar" $words >/dev/full 2>"$work/err"
        is "$words >/dev/full: status" 1 $?
        has err "cannot write to stdout: No space left on device"
    done
}

test_ends()
{
    subscribe sigterm end/x
    kill -TERM "$sub"
    subscribed 143
    subscribe sigint end/x
    kill -INT "$sub"
    subscribed 130

    mkfifo "$work/pipe"
    rm -f "$work/ready"
    "$busbar" sub -q end/x --ready-file "$work/ready" >"$work/pipe" &
    sub=$!
    exec 9<"$work/pipe"
    wait_for_file "$work/ready"
    exec 9<&-
    subscribed 0
}

test_requests()
{
    ends 0 "$busbar" ping -n 2 -i 1ms
    has out "pong from broker"
    ends 0 "$busbar" status
    has out "counters"
    ends 0 "$busbar" status --json
    has out '"channels":'
    ends 0 "$busbar" status broker --json
    ends 2 "$busbar" status nonsense
    ends 0 "$busbar" bench -p 2 -s 2 -n 1000
    has out "0 in silence"
    ends 0 "$busbar" bench -n 1000 --rate 5000 --json
    has out '"published":1000'
    has out '"lost_in_silence":0'
}

test_completion()
{
    "$busbar" completion bash >"$work/completion"
    # shellcheck disable=SC2016 # for the inner shell
    is "completion" "drop_oldest drop_newest disconnect" "$(bash -c 'source "$1"
        COMP_WORDS=(busbar sub --overflow d) COMP_CWORD=3
        _busbar
        echo "${COMPREPLY[*]}"' - "$work/completion")"
    # shellcheck disable=SC2016 # for the inner shell
    is "completion of a first operand" "trim" "$(bash -c 'source "$1"
        COMP_WORDS=(busbar channel t) COMP_CWORD=2
        _busbar
        echo "${COMPREPLY[*]}"' - "$work/completion")"
}

# Who watches is told that the broker is gone, and that it is there again; who publishes, what is not acknowledged.
test_cut()
{
    rm -f "$work/ready"
    "$busbar" sub cut/x --timeout 20s -n 1 --raw --ready-file "$work/ready" >"$work/cut" 2>"$work/cut.err" &
    sub=$!
    wait_for_file "$work/ready"
    mkfifo "$work/lines"
    "$busbar" pub cut/y --lines --timeout 300ms <"$work/lines" 2>"$work/pub.err" &
    local pub=$!
    exec 7>"$work/lines"
    echo 1 >&7
    ends 0 "$busbar" sub cut/y --from all -n 1 --timeout 10s
    stop_broker
    is "broker: status" 0 $?
    seq 2 >&7
    exec 7>&-
    wait "$pub"
    is "pub without a broker: status" 5 $?
    has pub.err "2 of 3 events were not acknowledged within 0.3 s: the connection is lost: "
    wait_for_text cut.err "the connection is lost"
    start_broker
    wait_for_text cut.err "connected again"
    ends 0 "$busbar" pub cut/x back
    subscribed 0
    is "event after the cut" back "$(cat "$work/cut")"
}

# The memory of the broker ends with it, which a subscriber is told as a gap.
test_strict()
{
    ends 0 "$busbar" pub strict/x 1
    subscribe strict 'strict/*' --from 1 --strict --json
    wait_for_file "$work/strict"
    stop_broker
    is "broker: status" 0 $?
    start_broker
    subscribed 6
    has strict '"reason":"restart"'
}

start_broker
for test in command_line bad_url no_broker bodies lines attributes from acks stdout ends requests completion cut strict; do
    before=$failed
    "test_$test"
    if [[ $failed -eq $before ]]; then
        echo "ok: $test"
    fi
done
stop_broker
is "broker: status" 0 $?
if [[ $failed -gt 0 ]]; then
    echo "$failed checks failed; the broker said:"
    tail -n 20 "$work/broker.log"
    exit 1
fi
