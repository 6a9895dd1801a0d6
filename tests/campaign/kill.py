#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of busbard under load: what was acknowledged as synced is read back once, in order, with no hole.

kill.py BUSBARD [--rounds N] [--publishers N] [--seed N] [--control]

Publishers keep numbered batches in flight; after a kill they come back with their client id and epoch and repeat what was
not acknowledged. A subscriber with a durable cursor goes on where it saved it; what it saw must be in the log in the end.
--control gives each return a new epoch, so that repetitions count as new: then the run succeeds only if
duplicates are found and nothing is lost. Not every kill meets a batch that is durable and whose acknowledgement has not arrived:
it goes on after N rounds until one has, and gives up after 200. Exit 1 on any loss, duplicate, disorder or slow start."""
import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import msgpack
import zmq

HELLO, PUBLISH, SUBSCRIBE, PING, PONG, CURSOR = 1, 2, 3, 6, 7, 11
WELCOME, SUBSCRIBED, ACK, DELIVER, GAP, RESULT, ERROR, ENDED = 16, 17, 18, 19, 20, 21, 22, 24
SYNCED = 3
WINDOW = 64  # publishes in flight of each publisher
DEADLINE = 30.0
RESTART_LIMIT = 2.0
CONTROL_ROUNDS = 200  # of a control that finds nothing


class Connection:
    def __init__(self, endpoint, client=None, epoch=0):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.send([HELLO, 1, 1, client, epoch, {"heartbeat": 0}])
        head = self.receive()[0]
        assert head[0] == WELCOME, head

    def send(self, head, *events):
        self.socket.send(b"".join(map(msgpack.packb, (head, *events))))

    def receive(self, timeout=DEADLINE):
        """The next message, or None."""
        while self.socket.poll(timeout * 1000):
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
            unpacker.feed(b"".join(self.socket.recv_multipart()))
            message = list(unpacker)
            if message[0][0] != PING:
                return message
            self.send([PONG, message[0][1]])
        return None

    def close(self):
        self.socket.close()


class Publisher:
    """What one publisher sent and what it was told. An event's payload is [publisher, number, place in the batch]."""

    def __init__(self, index, rng):
        self.index, self.rng = index, rng
        self.client, self.epoch = os.urandom(16), 0
        self.sizes = {}  # number: events
        self.waiting = collections.OrderedDict()
        self.acked = {}  # number: sequence it was told, or None
        self.number = 0
        self.base = 0  # subtracted from numbers on the wire
        self.refused = []
        self.connection = None

    def connect(self, endpoint):
        self.connection = Connection(endpoint, self.client, self.epoch)
        if self.epoch:  # numbers begin anew with an epoch
            self.base = next(iter(self.waiting), self.number + 1) - 1
        for number in self.waiting:
            self.transmit(number)

    def transmit(self, number):
        self.connection.send([PUBLISH, number - self.base, SYNCED],
                             *([f"log/p{self.index}", [self.index, number, i]] for i in range(self.sizes[number])))

    def fill(self):
        while len(self.waiting) < WINDOW:
            self.number += 1
            self.sizes[self.number] = self.rng.randint(1, 8)
            self.waiting[self.number] = True
            self.transmit(self.number)

    def take(self):
        """All that has come."""
        while (message := self.connection.receive(0)) is not None:
            head = message[0]
            if head[0] == ERROR:
                self.refused.append(head)
            for entry in head[1] if head[0] == ACK else ():
                if entry[1] != SYNCED or (len(entry) > 4 and entry[4]):  # below what was asked, or events were not taken
                    self.refused.append(entry)
                    self.waiting.pop(entry[0] + self.base, None)
                elif self.waiting.pop(entry[0] + self.base, None):
                    positions = entry[3] if len(entry) > 3 else None
                    self.acked[entry[0] + self.base] = positions[0][1] if positions else None


class Follower:
    """A subscriber with a durable cursor, which it saves now and then and goes on from after each kill."""

    NAME = "follower"

    def __init__(self):
        self.connection = None
        self.is_subscribed = False
        self.seen = {}  # sequence: payload
        self.at = 0  # fate known up to here
        self.sent = []  # positions of cursors that were sent and not answered
        self.saved = 0  # the last one that was answered
        self.wrong = collections.Counter()

    def connect(self, endpoint):
        self.connection, self.is_subscribed = Connection(endpoint), False
        self.connection.send([SUBSCRIBE, 1, 1, ["log/*"], 1,
                              {"durable": self.NAME, "bytes": 1 << 40, "events": 1 << 40}])

    def take(self, rng):
        """All that has come; then perhaps the cursor is saved."""
        while (message := self.connection.receive(0)) is not None:
            head, rest = message[0], message[1:]
            if head[0] == SUBSCRIBED:
                begins = dict(head[4]).get("log", 0)
                self.wrong["cursors"] += not (self.saved <= begins and begins in (self.saved, *self.sent))
                self.saved, self.sent, self.at, self.is_subscribed = begins, [], begins, True
            elif head[0] == RESULT:
                self.saved = self.sent.pop(0)
            elif head[0] == DELIVER:
                self.deliver(head, rest)
            else:
                self.wrong["answers"] += 1
        if self.is_subscribed and self.at > self.saved and rng.random() < 0.1:
            self.sent.append(self.at)
            self.connection.send([CURSOR, 2, self.NAME, [["log", self.at]]])

    def deliver(self, head, rest):
        for _, begin, end in head[2]:
            self.wrong["seams"] += begin != self.at
            self.at = end
        at = 0
        while at < len(rest):
            sequence, count = rest[at][3], rest[at][5]
            for i in range(count):
                payload = tuple(rest[at + 1 + i][1])
                self.wrong["changed"] += self.seen.setdefault(sequence + i, payload) != payload
            at += 1 + count

    def check(self, events):
        """What was seen is in the log, and of what it has come past nothing is missing."""
        log, newest = dict(events), max(self.seen, default=0)
        self.wrong["phantoms"] += sum(log.get(sequence) != payload for sequence, payload in self.seen.items())
        self.wrong["missed"] += sum(sequence <= newest and sequence not in self.seen for sequence in log)
        return self.wrong


def start(busbard, directory, options=(), preload=None):
    """The process, its door, and the seconds until a client was welcome."""
    ports = os.path.join(directory, "ports")
    if os.path.exists(ports):
        os.unlink(ports)
    begun = time.monotonic()
    environment = {**os.environ, "LD_PRELOAD": preload} if preload else None
    process = subprocess.Popen([busbard, "--listen", "tcp://127.0.0.1:*", "--ports-file", ports,
                                *(() if "--data" in options else ("--data", os.path.join(directory, "data"))), *options],
                               stderr=subprocess.DEVNULL, env=environment)
    while not os.path.exists(ports):
        if process.poll() is not None or time.monotonic() - begun > DEADLINE:
            raise AssertionError(f"busbard did not start: {process.poll()}")
        time.sleep(0.002)
    with open(ports, encoding="utf-8") as file:
        endpoint = json.load(file)["listen"][0]
    Connection(endpoint).close()
    return process, endpoint, time.monotonic() - begun


def read_all(endpoint, start=1, times=None):
    """[(sequence, payload)] of the channel from the first event on, and the gaps; @times: list that gets the time of each."""
    reader, events, gaps = Connection(endpoint), [], []
    reader.send([SUBSCRIBE, 2, 1, ["log/*"], start, {"until": "now", "bytes": 1 << 40, "events": 1 << 40}])
    while True:
        message = reader.receive()
        assert message is not None, "the reader was told nothing more"
        head, rest, at = message[0], message[1:], 0
        if head[0] == ENDED:
            reader.close()
            return events, gaps
        assert head[0] != ERROR, head
        if head[0] == GAP or (head[0] == DELIVER and len(head) > 3):
            gaps += head[2 if head[0] == GAP else 3] or []
        while head[0] == DELIVER and at < len(rest):
            sequence, count = rest[at][3], rest[at][5]
            events += [(sequence + i, tuple(rest[at + 1 + i][1])) for i in range(count)]
            if times is not None:
                times += [rest[at][1]] * count
            at += 1 + count


def has_duplicates(events):
    return len({payload for _, payload in events}) < len(events)


def check(publishers, events, gaps):
    """Counter of what is wrong."""
    wrong = collections.Counter()
    wrong["gaps"] = len(gaps)
    wrong["holes"] = sum(1 for i, (sequence, _) in enumerate(events) if sequence != i + 1)
    seen = collections.Counter(payload for _, payload in events)
    wrong["duplicates"] = sum(times - 1 for times in seen.values())
    at = {sequence: payload for sequence, payload in events}
    last = collections.defaultdict(tuple)
    for _, (index, *place) in events:
        wrong["disorder"] += tuple(place) < last[index]
        last[index] = max(last[index], tuple(place))
        wrong["invented"] += not (index < len(publishers) and place[1] < publishers[index].sizes.get(place[0], 0))
    for publisher in publishers:
        wrong["refused"] += len(publisher.refused)
        for number, told in publisher.acked.items():
            size = publisher.sizes[number]
            wrong["lost"] += sum((publisher.index, number, i) not in seen for i in range(size))
            wrong["moved"] += told is not None and at.get(told, ())[:2] != (publisher.index, number)
    return wrong


def play_round(options, directory, publishers, follower, rng):
    """Load until the kill; then what has still arrived is taken. Returns the seconds that the start took."""
    ipc = f"ipc://{directory}/bus"
    process, endpoint, seconds = start(options.busbard, directory, ("--listen", ipc))
    try:
        for publisher in publishers:
            publisher.epoch += options.control
            publisher.connect(ipc if publisher.index % 2 else endpoint)
        follower.connect(rng.choice((ipc, endpoint)))
        end = time.monotonic() + rng.uniform(0.02, 0.4)
        while time.monotonic() < end:
            for publisher in publishers:
                publisher.take()
                publisher.fill()
            follower.take(rng)
    finally:
        process.kill()
        process.wait()
    for publisher in publishers:
        publisher.take()
        publisher.connection.close()
    follower.take(rng)
    follower.connection.close()
    return seconds


def read_back(options, directory, events, gaps):
    """Add what has come into the log since. Returns the seconds that the start took."""
    process, endpoint, seconds = start(options.busbard, directory)
    try:
        new, lost = read_all(endpoint, len(events) + 1)
        events += new
        gaps += lost
    finally:
        process.kill()
        process.wait()
    return seconds


def run(options, publishers, follower, rng):
    """Rounds, what was read in the end with its gaps, the slowest start."""
    rounds, slowest, events, gaps = 0, 0.0, [], []
    with tempfile.TemporaryDirectory(prefix="busbar-kill-") as directory:
        while rounds < options.rounds or (options.control and rounds < CONTROL_ROUNDS and not has_duplicates(events)):
            slowest = max(slowest, play_round(options, directory, publishers, follower, rng))
            rounds += 1
            if rounds >= options.rounds:
                slowest = max(slowest, read_back(options, directory, events, gaps))
    return rounds, events, gaps, slowest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("busbard")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    publishers, follower = [Publisher(i, rng) for i in range(options.publishers)], Follower()
    rounds, events, gaps, slowest = run(options, publishers, follower, rng)
    wrong = check(publishers, events, gaps) + follower.check(events)
    acked = sum(sum(p.sizes[n] for n in p.acked) for p in publishers)
    print(f"{rounds} rounds, {acked} acked, {wrong['lost']} lost, {wrong['duplicates']} duplicates, "
          f"{len(events)} read, {len(follower.seen)} followed, slowest start {slowest:.2f} s, seed {options.seed}; "
          f"wrong: {dict(+wrong)}")
    for publisher in publishers:
        for head in publisher.refused[:2]:
            print("refused:", head)
    if options.control:
        return 0 if wrong["duplicates"] and not wrong["lost"] + wrong["phantoms"] + wrong["cursors"] else 1
    return 1 if +wrong or not acked or slowest >= RESTART_LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
