#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A whole busbar client in MessagePack, with nothing but pyzmq and msgpack (see proto/PROTOCOL.md).

    dealer_msgpack.py ENDPOINT sub PATTERN [N]         print N events (default: for ever)
    dealer_msgpack.py ENDPOINT pub PATH JSON           publish one event and print its acknowledgement
"""
import json
import os
import sys

import msgpack
import zmq

HELLO, PUBLISH, SUBSCRIBE, CREDIT, PING, PONG, GOODBYE = 1, 2, 3, 5, 6, 7, 10
WELCOME, SUBSCRIBED, ACK, DELIVER, GAP, ERROR = 16, 17, 18, 19, 20, 22
WINDOW = 1 << 20  # bytes that may be on their way to us


def send(socket, head, *events):
    socket.send(b"".join(msgpack.packb(value) for value in (head, *events)))


def receive(socket):
    """The next message that is for us: its head, and what follows the head."""
    while True:
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        unpacker.feed(b"".join(socket.recv_multipart()))
        head, *rest = unpacker
        if head[0] == PING:
            send(socket, [PONG, head[1]])
        elif head[0] in (ERROR, GOODBYE):
            sys.exit(f"the broker says: {head}")
        else:
            return head, rest


def subscribe(socket, pattern, n):
    shown = taken = granted = 0
    send(socket, [SUBSCRIBE, 2, 1, [pattern], "new", {"bytes": WINDOW, "events": 1 << 62}])
    while n is None or shown < n:
        head, rest = receive(socket)
        if head[0] == SUBSCRIBED:
            print("subscribed", flush=True)
        elif head[0] == GAP:
            print("lost:", head[2], flush=True)
        elif head[0] == DELIVER and len(head) > 3 and head[3]:  # what was lost before these
            print("lost:", head[3], flush=True)
        while rest:
            session, when, source, sequence, instance, count, length = rest.pop(0)
            taken += length
            for i in range(count):
                path, payload, *attributes = rest.pop(0)
                if n is None or shown < n:
                    print(sequence + i, path, payload, *attributes, flush=True)
                    shown += 1
        if taken - granted > WINDOW // 2:
            granted = taken
            send(socket, [CREDIT, 1, granted + WINDOW, 1 << 62])


def main():
    endpoint, verb, where, *more = sys.argv[1:]
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    send(socket, [HELLO, 1, 1, os.urandom(16), 0, {"name": "plain msgpack", "heartbeat": 10000}])
    receive(socket)
    if verb == "sub":
        subscribe(socket, where, int(more[0]) if more else None)
    else:
        send(socket, [PUBLISH, 1, 2], [where, json.loads(more[0])])
        print("acknowledged:", receive(socket)[0][1])
    send(socket, [GOODBYE, "closed"])


if __name__ == "__main__":
    main()
