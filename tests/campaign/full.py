#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A full disk under busbard: its log lies in a small file system of its own.

full.py BUSBARD [--rounds N] [--seed N]

Each round: publish until the log refuses for want of room, which must come before the disk is full; channels in memory and reading go
on; a trim makes room without a restart. Then somebody else fills the disk to the last byte while publishers
go on; the broker is killed there, started there, and goes on when there is room again. In the end what was acknowledged as synced and
not trimmed is read back, once and in order. Needs root and loop devices; exit 77 without."""
import argparse
import collections
import errno
import os
import random
import sys
import tempfile
import time

import kill
import power

PAD = b"x" * 4000
OPTIONS = ("--backend-option", "journal-size=2M", "--backend-option", "reserve=8M", "--backend-option", "retain-interval=50ms")
IMAGE_BYTES = 80 << 20
RESERVE = 5 << 20  # what must be left when it refuses: the reserve of so small a disk is a sixteenth of it
FULL = ("log_full", "log_failed", "full")


class Publisher(kill.Publisher):
    """Of large events."""

    def transmit(self, number):
        self.connection.send([kill.PUBLISH, number - self.base, kill.SYNCED],
                             *([f"log/p{self.index}", [self.index, number, i, PAD]] for i in range(self.sizes[number])))

    def codes(self):
        """Why batches were refused since the last time; refused ones do not exist, and have been answered."""
        codes = set()
        for what in self.refused:
            if what[0] == kill.ERROR:
                codes.add(what[3])
                self.waiting.pop(what[2] + self.base, None)
            else:
                codes.update(code for _, code in what[4])
        self.refused = []
        return codes


def until(condition, what, seconds=kill.DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Asking(kill.Connection):
    """For single requests."""

    def request(self, *head):
        self.send([head[0], 1, *head[1:]])
        while True:
            message = self.receive()
            assert message is not None, f"no answer to {head}"
            if message[0][0] in (21, kill.ERROR):
                return message[0]


def publish_until(publishers, wanted, seconds=kill.DEADLINE):
    """Publish until the codes of refusals satisfy wanted()."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for publisher in publishers:
            publisher.take()
            codes = publisher.codes()
            assert codes <= set(FULL), codes
            if wanted(publisher, codes):
                return
            publisher.fill()
    raise AssertionError("what was waited for did not come")


def drain(publishers):
    """Until everything is answered."""
    def is_answered():
        for publisher in publishers:
            publisher.take()
            publisher.codes()
        return not any(publisher.waiting for publisher in publishers)
    until(is_answered, "answers to all that was published")


def memory_works(endpoint):
    """A channel in memory takes an event, and an event that was stored before is found."""
    client = Asking(endpoint, os.urandom(16))
    client.send([kill.PUBLISH, 1, 1], ["mem/a", 1])
    ack = client.receive()
    assert ack is not None and ack[0][0] == kill.ACK and len(ack[0][1][0]) <= 4, ack
    client.send([12, 1, {"types": ["log/*"], "max": 1}])
    found = client.receive()
    assert found is not None and found[0][0] == 23 and len(found) > 1, found
    client.close()


def free(disk):
    status = os.statvfs(disk.top)
    return status.f_bavail * status.f_frsize


def ballast(disk):
    """A file that takes all that is left."""
    path = os.path.join(disk.top, "ballast")
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
    return path


def last_sequence(publishers):
    return max((told or 0) for publisher in publishers for told in publisher.acked.values())


def fill_and_trim(publishers, endpoint, disk):
    """Return: the sequence below which everything was trimmed."""
    publish_until(publishers, lambda _, codes: "log_full" in codes)
    drain(publishers)
    left = free(disk)
    assert left >= RESERVE // 2, f"{left} bytes left when the log refused"
    memory_works(endpoint)
    client = Asking(endpoint)
    before = last_sequence(publishers) - 500
    answer = client.request(13, "trim", "log", {"before": before})
    assert answer[0] == 21, answer
    client.close()
    acked = [len(publisher.acked) for publisher in publishers]
    publish_until(publishers, lambda publisher, _: len(publisher.acked) > acked[publisher.index] + 5)
    drain(publishers)
    return before


def fill_from_outside(options, publishers, process, disk, rng):
    """Somebody else takes the rest of the disk; killed and started there. Return: the process and its door."""
    path = ballast(disk)
    end = time.monotonic() + rng.uniform(0.1, 0.6)
    while time.monotonic() < end:
        for publisher in publishers:
            publisher.take()
            publisher.codes()
            publisher.fill()
    assert process.poll() is None, "it ended on the full disk"
    process.kill()
    process.wait()
    for publisher in publishers:
        publisher.take()
        publisher.codes()
        publisher.connection.close()
    process, endpoint, _ = kill.start(options.busbard, os.path.dirname(disk.top), (*OPTIONS, "--data", f"{disk.top}/data"))
    client = Asking(endpoint)
    client.close()
    os.unlink(path)
    for publisher in publishers:
        publisher.connect(endpoint)
    acked = [len(publisher.acked) for publisher in publishers]
    publish_until(publishers, lambda publisher, _: len(publisher.acked) > acked[publisher.index] + 5)
    drain(publishers)
    return process, endpoint


def run(options, disk, rng):
    publishers = [Publisher(i, rng) for i in range(2)]
    trimmed = 0
    process, endpoint, _ = kill.start(options.busbard, os.path.dirname(disk.top), (*OPTIONS, "--data", f"{disk.top}/data"))
    try:
        client = Asking(endpoint)
        answer = client.request(13, "add", "mem", {"store": "memory"})
        assert answer[0] == 21, answer
        client.close()
        for publisher in publishers:
            publisher.connect(endpoint)
        for _ in range(options.rounds):
            trimmed = max(trimmed, fill_and_trim(publishers, endpoint, disk))
            process, endpoint = fill_from_outside(options, publishers, process, disk, rng)
        events, gaps = kill.read_all(endpoint)
    finally:
        process.kill()
        process.wait()
    return publishers, trimmed, [(sequence, payload[:3]) for sequence, payload in events], gaps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("busbard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="busbar-full-") as directory:
        disk = power.Disk(directory, IMAGE_BYTES)
        if not disk.mount():
            print("skipped: no loop device can be mounted here")
            return 77
        try:
            publishers, trimmed, events, gaps = run(options, disk, random.Random(options.seed))
        finally:
            disk.unmount()
    acked = {told + i: (publisher.index, number, i) for publisher in publishers
             for number, told in publisher.acked.items() if told for i in range(publisher.sizes[number])}
    read = dict(events)
    wrong = collections.Counter(
        lost=sum(sequence >= trimmed and read.get(sequence) != payload for sequence, payload in acked.items()),
        twice=len(events) - len({payload for _, payload in events}),
        disorder=sum(a[0] >= b[0] for a, b in zip(events, events[1:])),
        holes=sum(a[0] + 1 != b[0] for a, b in zip(events, events[1:])),
        gaps=sum(gap[4] != "trimmed" for gap in gaps))
    print(f"{options.rounds} rounds, {len(acked)} acked, {len(events)} read after the trims, seed {options.seed}; wrong: {dict(+wrong)}")
    return 1 if +wrong or not events else 0


if __name__ == "__main__":
    sys.exit(main())
