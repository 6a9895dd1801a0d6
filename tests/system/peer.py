#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client in its own process, for tests that stop and kill it: peer.py ENDPOINT [key=value]...

Subscribes to `pattern`, answers pings, and answers each line of stdin with one line on stdout:
`status` (ok, the code of the refusal, or silence after a second without an answer), `count` (events received and lost)."""
import sys

import zmq

from peers import Client


def answer(client, line, ledger):
    if line == "count":
        return f"{len(ledger.events)} {ledger.lost}"
    client.corr += 1
    client.send(line, corr=client.corr)
    try:
        answer = client.wait(lambda message: message.get("corr") == client.corr, f"the answer to {line}", timeout=1)
    except AssertionError:
        return "silence"
    return answer["code"] if answer["op"] == "error" else "ok"


def main():
    options = dict(argument.split("=", 1) for argument in sys.argv[2:])
    client = Client(None, endpoint=sys.argv[1], name=options.get("name", "peer"), heartbeat=int(options.get("heartbeat", 0)))
    ledger = client.subscribe([options.get("pattern", "*")], bytes=1 << 40, events=1 << 40,
                              overflow=options.get("overflow", "slide"))
    print("ready", flush=True)
    poller = zmq.Poller()
    poller.register(client.socket, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if client.socket in ready:
            client.receive(0)
            for kept in ledger.events:  # only their number is asked for
                kept.pop("payload", None)
        if sys.stdin.fileno() in ready:
            line = sys.stdin.readline()
            if not line:
                return
            print(answer(client, line.strip(), ledger), flush=True)


if __name__ == "__main__":
    main()
