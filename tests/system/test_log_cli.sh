#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command `busbar` against a broker with a log: channels, queries, cursors, expectations, restarts.
#
#   tests/system/test_log_cli.sh BUSBAR BUSBARD
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
    cat "$work/broker.log"
    exit 1
}

start_broker()
{
    rm -f "$work/ports"
    mkdir -p "$work/data"
    "$busbard" --listen "$endpoint" --ports-file "$work/ports" --data "$work/data" 2>>"$work/broker.log" &
    broker=$!
    wait_for_file "$work/ports"
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
    local status=$?
    is "${*:2}: status ($(head -c 200 "$work/err"))" "$1" $status
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

# printed TEXT: what the last command of ends() printed, lines joined by blanks.
printed()
{
    is "output" "$1" "$(paste -sd' ' "$work/out")"
}

# payloads TEXT: the payloads of the JSON lines that it printed.
payloads()
{
    is "payloads" "$1" "$(sed 's/.*"payload":\(.*\)}$/\1/' "$work/out" | paste -sd' ')"
}

test_command_line()
{
    ends 2 "$busbar" channel
    ends 2 "$busbar" channel nonsense
    ends 2 "$busbar" channel add
    ends 2 "$busbar" channel ls name
    ends 2 "$busbar" channel add a --log --memory
    ends 2 "$busbar" channel set a --reset nonsense
    ends 2 "$busbar" channel trim a
    ends 2 "$busbar" channel info a --before 3
    ends 2 "$busbar" channel add a --max-bytes 3X
    ends 2 "$busbar" channel add a --max-age 0s
    ends 2 "$busbar" channel set a
    has err "set needs a setting"
    ends 2 "$busbar" channel rm a --max-age 1h
    ends 2 "$busbar" channel ls --memory
    ends 2 "$busbar" query 'a*'
    ends 2 "$busbar" query --from nonsense
    ends 2 "$busbar" query --after 1/2
    ends 2 "$busbar" query --asc --desc
    ends 2 "$busbar" query --where '.x >'
    has err "--where cannot be '.x >'"
    ends 2 "$busbar" query --where ''
    ends 2 "$busbar" query --payload hello
    has err "--payload cannot be 'hello'"
    ends 2 "$busbar" log
    ends 2 "$busbar" log backup
    ends 2 "$busbar" log verify name
    ends 2 "$busbar" sub a --until nonsense
    ends 2 "$busbar" sub a --where '.x >'
    ends 2 "$busbar" sub a --retained --from all
    ends 2 "$busbar" sub a --durable ''
    has err "1 to 64 bytes"
    ends 2 "$busbar" pub a b --ttl 0s
    ends 2 "$busbar" pub a b --expect nonsense
    ends 2 "$busbar" pub a b --expect 1 --expect-path 1
    ends 2 "$busbar" pub a b --expect 1 --count 2
}

test_channels()
{
    ends 0 "$busbar" channel add kept --log --max-age 7d --max-bytes 10G --min-events 5
    ends 4 "$busbar" channel add kept
    ends 0 "$busbar" channel info kept --json
    has out '"max_age":604800000'
    has out '"max_bytes":10737418240'
    has out '"store":"log"'
    ends 0 "$busbar" channel set kept --lazy --reset max-bytes --overflow drop_oldest
    ends 0 "$busbar" channel info kept --json
    has out '"sync":false'
    has out '"max_bytes":null'
    has out '"overflow":"drop_oldest"'
    ends 0 "$busbar" channel add fleeting --memory
    ends 4 "$busbar" pub fleeting/a 1 --level synced
    has err 'its channel is kept in memory alone (unsupported)'
    ends 0 "$busbar" channel ls
    has out fleeting
    ends 4 "$busbar" channel info nobody
    has err "there is no channel 'nobody'"
    ends 2 "$busbar" channel add a/b
    has err "'a/b' cannot be the name of a channel"
    ends 4 "$busbar" channel add kept
    has err "cannot add channel 'kept': it exists already"
    ends 2 "$busbar" channel set kept --ring 1
    has err '"ring" cannot be that; it is 65536 at least'
}

test_levels_and_expectations()
{
    ends 0 "$busbar" pub plant/a 1 --level synced
    ends 0 "$busbar" pub plant/a 2 --expect 1
    ends 4 "$busbar" pub plant/a 3 --expect 1
    has err "the newest of the channel 'plant' is 2 (conflict)"
    ends 0 "$busbar" pub plant/b 3 --expect-path 0
    ends 4 "$busbar" pub plant/b 4 --expect-path 0
    has err "the newest of the path 'plant/b' is 3 (conflict)"
    ends 0 "$busbar" pub plant/b '{"temp":90,"state":"on"}' --expect-path 3 --ttl 1h
}

test_subscribing()
{
    ends 0 "$busbar" sub 'plant/*' --from all --until now --raw
    printed '1 2 3 {"temp":90,"state":"on"}'
    ends 0 "$busbar" sub 'plant/*' --from 2 --until 3 --raw
    printed '2 3'
    ends 5 "$busbar" sub 'plant/*' --from 1h --until now --raw -n 9
    ends 0 "$busbar" sub 'plant/*' --from all --until now --raw --where '.temp > 80 && .state == "on"'
    printed '{"temp":90,"state":"on"}'
    ends 0 "$busbar" sub 'plant/*' --retained --json -n 2 --timeout 10s
    payloads '2 {"temp":90,"state":"on"}'
    ends 0 "$busbar" sub 'plant/*' --from all --durable mine --raw -n 2 --timeout 10s
    printed '1 2'
    ends 0 "$busbar" sub 'plant/*' --from new --durable mine --raw -n 1 --timeout 10s
    printed '3'
}

test_queries()
{
    ends 0 "$busbar" query 'plant/*'
    payloads '{"temp":90,"state":"on"} 3 2 1'
    ends 0 "$busbar" query plant/a --asc --max 1
    payloads 1
    has err '--after '
    after=$(sed 's/.*--after //' "$work/err")
    ends 0 "$busbar" query plant/a --asc --after "$after"
    payloads 2
    ends 0 "$busbar" query 'plant/*' --latest
    payloads '2 {"temp":90,"state":"on"}'
    ends 0 "$busbar" query 'plant/*' --unique --asc
    payloads '1 3'
    ends 0 "$busbar" query --where '.temp >= 90'
    payloads '{"temp":90,"state":"on"}'
    ends 0 "$busbar" query 'plant/*' --payload 2
    payloads 2
    ends 0 "$busbar" query 'plant/*' --to '1h ago'
    payloads ''
    ends 0 "$busbar" query 'plant/*' --from 1h --max 2
    payloads '{"temp":90,"state":"on"} 3'
}

# What could not be printed, and what a signal came in between, is printed by the next one of that name.
test_durable()
{
    mkfifo "$work/ready"
    "$busbar" pub fresh/x before
    "$busbar" sub -q 'fresh/*' --durable fresh --ready-file "$work/ready" >/dev/null &
    local i sub=$!
    read -r _ <"$work/ready"
    kill -KILL "$sub" # before it can have saved anything
    wait "$sub" 2>/dev/null
    "$busbar" pub fresh/x after
    ends 0 "$busbar" sub 'fresh/*' --durable fresh --raw -n 1 --timeout 10s
    printed after
    seq 200000 | "$busbar" pub count/x --lines
    "$busbar" sub -q 'plant/*' --from all --durable unprinted --raw -n 2 --timeout 10s >/dev/full 2>"$work/err"
    is "sub >/dev/full: status" 1 $?
    has err "cannot write to stdout: No space left on device"
    ends 0 "$busbar" sub 'plant/*' --from all --durable unprinted --raw -n 2 --timeout 10s
    printed '1 2'
    for i in 1 2 3 4 5; do
        "$busbar" sub -q 'count/*' --from all --durable counted --raw >>"$work/counted" &
        sub=$!
        sleep "0.0$i" # not a wait: the moment that the signal comes at
        while kill -INT "$sub" 2>/dev/null; do # one that comes before there is a handler is ignored
            sleep 0.05
        done
        wait "$sub"
    done
    "$busbar" sub -q 'count/*' --from all --durable counted --raw --until now >>"$work/counted"
    is "events after five signals" 200000 "$(sort -u "$work/counted" | wc -l)"
}

test_restart()
{
    kill -KILL "$broker"
    wait "$broker" 2>/dev/null
    start_broker
    ends 0 "$busbar" channel info kept --json
    has out '"sync":false'
    ends 0 "$busbar" sub 'plant/*' --from all --until now --raw
    printed '1 2 3 {"temp":90,"state":"on"}'
    ends 0 "$busbar" sub 'plant/*' --durable mine --raw -n 1 --timeout 10s
    printed '{"temp":90,"state":"on"}'
    ends 0 "$busbar" pub plant/a 5 --expect 4 --level synced
}

# Killed while a reader that stands still has most before it: it comes back and ends where it would have ended.
test_cut()
{
    seq -f '%.0f '"$(printf '%0200d' 0)" 40000 | "$busbar" pub cut/x --lines
    is "pub: status" 0 $?
    mkfifo "$work/cut"
    "$busbar" sub -q 'cut/*' --from all --until now --raw >"$work/cut" &
    local sub=$!
    exec 8<"$work/cut"
    read -r _ <&8
    kill -KILL "$broker"
    wait "$broker" 2>/dev/null
    start_broker
    ends 0 "$busbar" pub cut/x after -n 5
    is "events before the cut and behind it" "39999 40000" "$(awk '{ n++; last = $1 } END { print n, last }' <&8)"
    exec 8<&-
    wait "$sub"
    is "sub --until now: status" 0 $?
}

test_upkeep()
{
    ends 0 "$busbar" log status
    ends 0 "$busbar" log verify --json
    ends 0 "$busbar" log backup copy
    ends 0 "$busbar" log compact
    ends 0 "$busbar" channel trim plant --before 3
    ends 0 "$busbar" channel rm fleeting
    ends 0 "$busbar" channel ls --json
    is "channels called fleeting" 0 "$(grep -c fleeting "$work/out")"
    ends 4 "$busbar" channel rm nobody
    ends 0 "$busbar" channel add fleeting --memory
    ends 4 "$busbar" log backup copy
    has err "cannot make the backup 'copy': it exists already"
    ends 2 "$busbar" log backup ../copy
    has err "'../copy' cannot be the name of a backup"
}

# A second broker with the same words leaves the first one alone.
test_two_brokers()
{
    ends 1 "$busbard" --listen "ipc://$work/other" --ports-file "$work/ports" --data "$work/data"
    has err "another broker has it open"
    ends 0 test -s "$work/ports"
}

# One byte of a record turned while nobody looks.
test_damage()
{
    ends 0 "$busbar" pub hurt/a 'this one is damaged' --level synced
    ends 0 "$busbar" pub whole/a 'this one is not' --level synced
    kill "$broker"
    wait "$broker"
    local at
    while IFS=: read -r at _; do # in pages that are not in use any more, too
        printf X | dd of="$work/data/data.mdb" bs=1 seek="$at" conv=notrunc status=none
    done < <(grep -abo 'this one is damaged' "$work/data/data.mdb")
    start_broker
    ends 4 "$busbar" log verify
    has out problems
    has err "the log is damaged"
    ends 4 "$busbar" log verify --json
    ends 4 "$busbar" sub 'hurt/*' --from all --until now --timeout 10s
    has err "the subscription ended: what was stored is damaged"
    ends 4 "$busbar" query 'hurt/*'
    has err "what was stored is damaged"
    ends 0 "$busbar" sub 'whole/*' --from all --until now --raw --timeout 10s
    printed 'this one is not'
}

test_command_line
start_broker
test_channels
test_levels_and_expectations
test_subscribing
test_queries
test_durable
test_restart
test_cut
test_upkeep
test_two_brokers
test_damage
kill "$broker"
wait "$broker"
is "busbard: status" 0 $?

if ((failed > 0)); then
    echo "$failed failures"
    cat "$work/broker.log"
    exit 1
fi
