#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Listens at the publish window of a broker: sub.py ENDPOINT TOPIC [N]

A topic is the beginning of a path; best effort. A hole in `seq` is a loss, as long as the topic is a whole channel."""
import sys

import msgpack
import zmq


def main():
    endpoint, topic, *more = sys.argv[1:]
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(endpoint)
    socket.subscribe(topic)
    n = int(more[0]) if more else -1
    while n != 0:
        path, event = socket.recv_multipart()
        event = msgpack.unpackb(event)
        print(event["seq"], path.decode(), event["payload"], flush=True)
        n -= 1


if __name__ == "__main__":
    main()
