#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Power failures of busbard under load: its log lies in a file system of its own, which is shut down without flushing anything.

power.py BUSBARD [--rounds N] [--seed N] [--control SHIM]

What was acknowledged as synced is read back in the end, once and in order. In every second round the broker is stopped before the file
system is; in the others it goes on for some milliseconds on the dead one. --control preloads a library
that waits for no disk: then the run succeeds only if events are lost. Needs root and loop devices; exit 77 without."""
import argparse
import collections
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

import kill

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_BYTES = 1 << 30
OPTIONS = ("--backend-option", "journal-size=4M", "--backend-option", "reserve=0")


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, directory, size=IMAGE_BYTES):
        self.image, self.top = os.path.join(directory, "image"), os.path.join(directory, "disk")
        os.mkdir(self.top)
        with open(self.image, "wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)

    def mount(self):
        return subprocess.run(["mount", "-o", "loop", self.image, self.top], check=False).returncode == 0

    def shut_down(self):
        fd = os.open(self.top, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self):
        subprocess.run(["umount", self.top], check=True)


def load(publishers, endpoint, seconds):
    for publisher in publishers:
        publisher.connect(endpoint)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for publisher in publishers:
            publisher.take()
            publisher.fill()


def fail_power(disk, process, rng, is_stopped):
    if is_stopped:
        process.send_signal(signal.SIGSTOP)
    disk.shut_down()
    if not is_stopped:
        time.sleep(rng.uniform(0.001, 0.02))  # not a wait: the time that the broker lives on
    process.kill()
    process.wait()


def run(options, disk, rng):
    publishers = [kill.Publisher(i, rng) for i in range(options.publishers)]
    for number in range(options.rounds):
        process, endpoint, _ = kill.start(options.busbard, disk.top, OPTIONS, options.control)
        try:
            load(publishers, endpoint, rng.uniform(0.05, 0.3))
        finally:
            fail_power(disk, process, rng, number % 2 == 0)
        for publisher in publishers:
            publisher.take()
            publisher.connection.close()
        disk.unmount()
        if not disk.mount():
            raise AssertionError("the file system cannot be mounted again")
    process, endpoint, _ = kill.start(options.busbard, disk.top, OPTIONS)
    try:
        return publishers, *kill.read_all(endpoint)
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("busbard")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="busbar-power-") as directory:
        disk = Disk(directory)
        if not disk.mount():
            print("skipped: no loop device can be mounted here")
            return 77
        try:
            publishers, events, gaps = run(options, disk, random.Random(options.seed))
        except AssertionError as error:
            if not options.control:
                raise
            print(f"caught: {error}")  # the log could not even be opened
            return 0
        finally:
            disk.unmount()
    wrong = collections.Counter(kill.check(publishers, events, gaps))
    acked = sum(sum(p.sizes[n] for n in p.acked) for p in publishers)
    print(f"{options.rounds} rounds, {acked} acked, {wrong['lost']} lost, {wrong['duplicates']} duplicates, "
          f"{len(events)} read, seed {options.seed}; wrong: {dict(+wrong)}")
    # A log that fails on the dead disk refuses what waited for it: that is its duty.
    wrong["refused"] = 0
    if options.control:
        return 0 if wrong["lost"] else 1
    return 1 if +wrong or not acked else 0


if __name__ == "__main__":
    sys.exit(main())
