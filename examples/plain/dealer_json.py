#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A whole busbar client in JSON, with nothing but pyzmq (see proto/PROTOCOL.md, section 10).

    dealer_json.py ENDPOINT sub PATTERN [N]         print N events (default: for ever)
    dealer_json.py ENDPOINT pub PATH JSON           publish one event and print its acknowledgement
"""
import json
import sys

import zmq

GRANT = 10000  # events that may be on their way to us


def receive(socket):
    """The next message that is for us."""
    while True:
        message = json.loads(socket.recv())
        if message["op"] == "ping":
            socket.send_json({"op": "pong", "token": message["token"]})
        elif message["op"] in ("error", "goodbye"):
            sys.exit(f"the broker says: {message}")
        else:
            return message


def subscribe(socket, pattern, n):
    taken = granted = 0
    socket.send_json({"op": "subscribe", "corr": 2, "sub": 1, "patterns": [pattern],
                      "options": {"bytes": 1 << 62, "events": GRANT}})
    while n is None or taken < n:
        message = receive(socket)
        if message["op"] == "subscribed":
            print("subscribed", flush=True)
        if message.get("gaps"):  # in a message of their own, or before the events that come after them
            print("lost:", message["gaps"], flush=True)
        for event in message.get("events", [])[:None if n is None else n - taken]:
            print(event["seq"], event["path"], event["payload"], flush=True)
            taken += 1
        if taken - granted > GRANT // 2:
            granted = taken
            socket.send_json({"op": "credit", "sub": 1, "bytes": 1 << 62, "events": granted + GRANT})


def main():
    endpoint, verb, where, *more = sys.argv[1:]
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    socket.send_json({"op": "hello", "corr": 1, "version": 1, "client": None, "epoch": 0,
                      "options": {"name": "plain json", "heartbeat": 10000}})
    receive(socket)
    if verb == "sub":
        subscribe(socket, where, int(more[0]) if more else None)
    else:
        socket.send_json({"op": "publish", "number": 1, "level": 2,
                          "events": [{"path": where, "payload": json.loads(more[0])}]})
        print("acknowledged:", receive(socket)["entries"])
    socket.send_json({"op": "goodbye", "code": "closed"})


if __name__ == "__main__":
    main()
