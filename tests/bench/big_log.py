#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a large log costs: filling it, opening it, going to a time, the latest of many paths, a long query.

    big_log.py BUSBARD BUSBAR [--size 10G] [--paths 100000] [--directory DIR]

Publishes batches of 1,000 events of 128 bytes, synced, eight in flight, over ipc: events of --active paths, and before and
behind them one of each of --paths. One line a figure on stdout."""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
# pylint: disable=wrong-import-position
from broker import Broker, Settings, until  # noqa: E402
from peers import Client, event_array, pack, unpack  # noqa: E402

PER_BATCH = 1000
IN_FLIGHT = 8
SMALL = 100 << 20
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def say(name, value):
    print(f"{name:<44} {value}", flush=True)


class Filler:
    """Publishes; the bodies are made once."""

    def __init__(self, client, paths):
        self.client = client
        payload = os.urandom(126)
        self.bodies = [pack(*(event_array({"path": f"plant/line{(first + i) % 97}/sensor{first + i}", "payload": payload})
                              for i in range(PER_BATCH)))
                       for first in range(0, paths, PER_BATCH)]
        self.turn = 0
        self.waiting = 0

    def take_ack(self):
        while True:
            head = unpack(b"".join(self.client.socket.recv_multipart()))[0]
            if head[0] == 18:
                assert all(entry[1] == 3 for entry in head[1]), head
                self.waiting -= len(head[1])
                return
            assert head[0] == 6, head
            self.client.send("pong", token=head[1])

    def publish(self, wanted):
        """Until wanted() is false; how many events, and events a second."""
        begun = time.monotonic()
        n = 0
        while wanted():
            self.client.number += 1
            self.client.socket.send(pack([2, self.client.number, 3]) + self.bodies[self.turn % len(self.bodies)])
            self.turn += 1
            n += PER_BATCH
            self.waiting += 1
            while self.waiting >= IN_FLIGHT:
                self.take_ack()
        while self.waiting > 0:
            self.take_ack()
        return n, n / (time.monotonic() - begun)

    def publish_for(self, seconds):
        end = time.monotonic() + seconds
        return self.publish(lambda: time.monotonic() < end)


def size_of(directory):
    return os.stat(os.path.join(directory, "data.mdb")).st_size


def find_store(directory):
    for root, _, files in os.walk(directory):
        if "data.mdb" in files:
            return root
    raise AssertionError(f"no data.mdb below {directory}")


def stopwatch(call):
    begun = time.monotonic()
    call()
    return (time.monotonic() - begun) * 1000


def steady(client, filler, seconds):
    """Events a second, when what was published before is in the tables and the journal has begun to wait for them."""
    until(lambda: client.request("log", action="status")["value"]["journal_bytes"] == 0, "the tables")
    filler.publish_for(seconds / 4)
    return filler.publish_for(seconds)[1]


def fill(broker, arguments, data):
    with Client(broker, transport="ipc") as client:
        every = Filler(client, arguments.paths)
        every.publish(lambda: every.turn < len(every.bodies))
        filler = Filler(client, arguments.active)
        filler.publish_for(0.5)
        store = find_store(data)
        filler.publish(lambda: size_of(store) < SMALL)
        rates = [steady(client, filler, arguments.seconds)]
        begun = time.monotonic()
        n, _ = filler.publish(lambda: size_of(store) < arguments.size)
        say("filled", f"{n} events in {time.monotonic() - begun:.0f} s")
        rates.append(steady(client, filler, arguments.seconds))
        every.publish(lambda: every.turn < 2 * len(every.bodies))
        say("synced at 100 MB, at the size; ratio", f"{rates[0]:.0f} {rates[1]:.0f} events/s {rates[1] / rates[0]:.2f}")
        return store


def wait_for(client, kind):
    head = [0]
    while head[0] != kind:
        head = unpack(b"".join(client.socket.recv_multipart()))[0]
        assert head[0] != 22, head
        if head[0] == 6:
            client.send("pong", token=head[1])


def go_to_times(broker, begun, ended):
    with Client(broker, transport="ipc") as client:
        taken = []
        for turn in range(50):
            when = int(random.uniform(begun, ended) * 1e6)
            start = time.monotonic()
            client.send("subscribe", corr=turn + 1, sub=turn + 1, patterns=["plant/*"], **{"from": {"time": when}},
                        options={"bytes": 65536})
            wait_for(client, 19)
            taken.append((time.monotonic() - start) * 1000)
            client.send("unsubscribe", corr=1000 + turn, sub=turn + 1)
            wait_for(client, 21)
        taken.sort()
        say("first event --from a random time", f"p50 {taken[25]:.1f} ms, worst of 50 {taken[-1]:.1f} ms")


def latest(broker, paths):
    command = [Settings.busbar, "--url", broker.door("listen", "ipc"), "query", "plant/*", "--latest", "--quiet"]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
    assert found == paths, found
    say(f"latest of {paths} paths, printed as JSON",
        f"{min(stopwatch(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)) for _ in range(3)):.0f} ms")


def long_query(broker, store, arguments):
    """The growth of the file for each event, without and with a query over everything."""
    with Client(broker, transport="ipc") as client:
        filler = Filler(client, arguments.active)
        filler.publish_for(2)
        before = size_of(store)
        n, rate = filler.publish_for(arguments.seconds)
        alone = (size_of(store) - before) / n
        command = [Settings.busbar, "--url", broker.door("listen", "ipc"), "query", "plant/*", "--asc", "--where",
                   ". == 1", "--timeout", "600s"]
        before = size_of(store)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as query:
            begun = time.monotonic()
            n, beside = filler.publish(lambda: query.poll() is None)
            say("query over all of it, beside publishing", f"{time.monotonic() - begun:.1f} s")
            assert query.returncode == 0
        say("publishing beside it; ratio", f"{rate:.0f} {beside:.0f} events/s {beside / rate:.2f}")
        growth = (size_of(store) - before) / n
        say("bytes of file an event without, with; ratio", f"{alone:.0f} {growth:.0f} {growth / max(alone, 1):.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("busbard")
    parser.add_argument("busbar")
    parser.add_argument("--size", default="10G")
    parser.add_argument("--paths", type=int, default=100000)
    parser.add_argument("--active", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--directory", help="where the log is made; default: the directory for temporary files")
    arguments = parser.parse_args()
    arguments.size = int(float(arguments.size[:-1]) * UNITS[arguments.size[-1]])
    Settings.busbard, Settings.busbar = os.path.abspath(arguments.busbard), os.path.abspath(arguments.busbar)
    place = tempfile.mkdtemp(prefix="busbar-big-", dir=arguments.directory)
    data = os.path.join(place, "data")
    doors = ("--listen", "ipc://{dir}/bus")
    try:
        begun = time.time()
        with Broker("--data", data, doors=doors) as broker:
            store = fill(broker, arguments, data)
        ended = time.time()
        say("size of the file", f"{size_of(store) / (1 << 30):.1f} GiB")
        for how in ("stopped", "killed"):
            with Broker("--data", data, doors=doors, check=False) as broker:
                with Client(broker, transport="ipc") as client:
                    Filler(client, arguments.active).publish_for(1)
                if how == "killed":
                    broker.process.kill()
                    broker.process.wait()
            broker = Broker("--data", data, doors=doors)
            say(f"opened after it was {how}", f"{stopwatch(broker.start):.0f} ms")
            broker.stop()
            broker.__exit__(None, None, None)
        with Broker("--data", data, doors=doors) as broker:
            go_to_times(broker, begun, ended)
            latest(broker, arguments.paths)
            long_query(broker, store, arguments)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
