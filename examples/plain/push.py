#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends one event to the ingest of a broker: push.py ENDPOINT PATH BODY

No answer comes. A body that is JSON arrives as that value, any other as text."""
import sys

import zmq


def main():
    endpoint, path, body = sys.argv[1:]
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.connect(endpoint)
    socket.send_multipart([path.encode(), body.encode()])  # leaves before the program ends: that is ZMQ_LINGER


if __name__ == "__main__":
    main()
