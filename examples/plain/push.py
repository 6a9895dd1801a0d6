#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends one event to the ingest of a broker: push.py ENDPOINT PATH BODY

No answer comes. A body that is JSON arrives as that value, any other as text."""
import sys

import zmq


def main():
    endpoint, path, body = sys.argv[1:]
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(endpoint)
        socket.send_multipart([path.encode(), body.encode()])
    # Only a context that is ended waits for what has not left yet; the end of the program alone does not.


if __name__ == "__main__":
    main()
