#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends each line of stdin as an event to the ingest for PUB sockets: pub.py ENDPOINT PATH

Best effort: what is sent before the broker has subscribed is lost, so that is waited for."""
import sys

import zmq


def main():
    endpoint, path = sys.argv[1:]
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:  # a PUB that is told who subscribes
        socket.connect(endpoint)
        socket.recv()
        for line in sys.stdin:
            socket.send_multipart([path.encode(), line.rstrip("\n").encode()])
    # The end of the context waits for what has not left yet.


if __name__ == "__main__":
    main()
