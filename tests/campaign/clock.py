#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Steps of the wall clock under a busbard with a log, back and forth, while it is published to and across kills.

clock.py BUSBARD SHIM [--rounds N] [--seed N]

SHIM is libclockstep.so. What was acknowledged as synced is read back once and in order; the times of events never go back, whatever the
clock did; and a subscription that begins at the time of any event begins with the first event that has it."""
import argparse
import bisect
import collections
import mmap
import os
import random
import struct
import sys
import tempfile
import time

import kill

HOUR = 3600 * 1000000
STEPS = (1000, 1000000, HOUR, 24 * HOUR, 400 * 24 * HOUR)  # us


class Clock:
    """Of the broker, against the true one."""

    def __init__(self, directory):
        path = os.path.join(directory, "clock")
        with open(path, "wb") as file:
            file.write(struct.pack("=q", 0))
        self.file = open(path, "r+b")  # pylint: disable=consider-using-with
        self.map = mmap.mmap(self.file.fileno(), 8)
        os.environ["CLOCKSTEP"] = path

    def step(self, rng):
        offset = struct.unpack("=q", self.map[:])[0] + rng.choice((-1, 1)) * rng.choice(STEPS)
        self.map[:] = struct.pack("=q", max(offset, -20 * 365 * 24 * HOUR))


def check_times(endpoint, events, times, rng):
    """What a subscription from a time gets, for some times."""
    wrong = collections.Counter(backwards=sum(a > b for a, b in zip(times, times[1:])))
    for _ in range(20):
        when = times[rng.randrange(len(times))] + rng.choice((-1, 0, 1))
        found, _ = kill.read_all(endpoint, {"time": when})
        first = bisect.bisect_left(times, when)
        wrong["from"] += found[:1] != events[first:first + 1] or len(found) != len(events) - first
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("busbard")
    parser.add_argument("shim")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    publishers = [kill.Publisher(i, rng) for i in range(2)]
    with tempfile.TemporaryDirectory(prefix="busbar-clock-") as directory:
        clock = Clock(directory)
        n_steps = 0
        for number in range(options.rounds + 1):
            process, endpoint, _ = kill.start(options.busbard, directory, preload=options.shim)
            try:
                if number == options.rounds:
                    times = []
                    events, gaps = kill.read_all(endpoint, times=times)
                    wrong = kill.check(publishers, events, gaps) + check_times(endpoint, events, times, rng)
                    break
                for publisher in publishers:
                    publisher.connect(endpoint)
                end = time.monotonic() + rng.uniform(0.05, 0.2)
                while time.monotonic() < end:
                    if rng.random() < 0.02:
                        clock.step(rng)
                        n_steps += 1
                    for publisher in publishers:
                        publisher.take()
                        publisher.fill()
            finally:
                process.kill()
                process.wait()
            for publisher in publishers:
                publisher.take()
                publisher.connection.close()
            clock.step(rng)
    acked = sum(sum(p.sizes[n] for n in p.acked) for p in publishers)
    print(f"{options.rounds} rounds, {n_steps} steps, {acked} acked, {len(events)} read, seed {options.seed}; wrong: {dict(+wrong)}")
    return 1 if +wrong or not acked or not n_steps else 0


if __name__ == "__main__":
    sys.exit(main())
