# SPDX-License-Identifier: Apache-2.0
"""A real busbard in a temporary directory, for one test: started, watched, stopped and judged."""
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

DEADLINE = 30.0  # seconds that anything may take before it counts as hanging
REPORTS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Settings:
    """What run.py was told."""
    busbard = None
    busbar = None
    options = []  # of every busbard
    sanitizer = ""
    size = 1
    seconds = 10.0  # of the random tests
    seed = None
    examples = []


def until(condition, what, deadline=DEADLINE, pause=0.01):
    """Poll until condition() is true; returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(pause)


def child_setup(files=None):
    """For preexec_fn: a child that does not outlive its test, with that many descriptors."""
    def setup():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    return setup


def status_of(pid):
    """The numbers of /proc/PID/status in KiB or units."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        rows = (line.split(":", 1) for line in status)
        return {name: int(value.split()[0]) for name, value in rows if value.split() and value.split()[0].isdigit()}


def cpu_of(pid):
    """Seconds of processor time that the process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Broker:
    """`with Broker(...) as broker:`; leaving it stops the broker with SIGTERM and expects a clean end."""

    DOORS = ("--listen", "tcp://127.0.0.1:*", "--listen", "ipc://{dir}/bus",
             "--publish", "tcp://127.0.0.1:*", "--publish", "ipc://{dir}/publish",
             "--publish-json", "tcp://127.0.0.1:*",
             "--ingest", "tcp://127.0.0.1:*", "--ingest", "ipc://{dir}/ingest",
             "--ingest-sub", "tcp://127.0.0.1:*", "--ingest-sub", "ipc://{dir}/ingest_sub")

    def __init__(self, *arguments, doors=DOORS, files=None, check=True):
        self.temporary = tempfile.TemporaryDirectory(prefix="busbar-")
        self.dir = self.temporary.name
        self.ports_file = os.path.join(self.dir, "ports")
        self.arguments = [text.format(dir=self.dir) for text in (*doors, *arguments)]
        self.files = files
        self.check = check
        self.log = []
        self.process = None
        self.reader = None
        self.doors = {}

    def start(self):
        self.process = subprocess.Popen(
            [Settings.busbard, "--ports-file", self.ports_file, *Settings.options, *self.arguments],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace",
            preexec_fn=child_setup(self.files))
        self.reader = threading.Thread(target=self._read_log, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        until(lambda: os.path.exists(self.ports_file) or self.process.poll() is not None, "the ports file")
        if self.process.poll() is not None:
            self.reader.join()
            raise AssertionError(f"busbard ended with {self.process.returncode}: {''.join(self.log)}")
        with open(self.ports_file, encoding="utf-8") as ports:
            self.doors = json.load(ports)
        return self

    def _read_log(self, stream):
        for line in stream:
            self.log.append(line)
            sys.stderr.write(line)
        stream.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if self.process.poll() is None:
                self.stop(judge=kind is None and self.check)
            elif kind is None and self.check and self.process.returncode != 0:
                raise AssertionError(f"busbard ended by itself with {self.process.returncode}")
        finally:
            self.kill()
            self.temporary.cleanup()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, deadline=DEADLINE):
        """The exit status."""
        self.process.wait(deadline)
        self.reader.join()
        return self.process.returncode

    def stop(self, judge=True):
        self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("busbard did not end after SIGTERM") from None
        text = "".join(self.log)
        if judge and (code != 0 or any(report in text for report in REPORTS)):
            raise AssertionError(f"busbard ended with {code}")

    def restart(self, *arguments):
        """The same endpoints once more, for `with`; without memory."""
        doors = []
        for name, endpoints in self.doors.items():
            for endpoint in endpoints:
                doors += ["--" + name.replace("_", "-"), endpoint]
        self.arguments = [*doors, *arguments]
        return self

    @property
    def pid(self):
        return self.process.pid

    @property
    def rss(self):
        """Resident memory in MiB."""
        return status_of(self.pid)["VmRSS"] / 1024

    def door(self, name="listen", transport="tcp"):
        return next(door for door in self.doors[name] if door.startswith(transport))


class Memory:
    """Growth of a broker's resident memory since the start of the block."""

    def __init__(self, broker):
        self.broker = broker
        self.before = broker.rss
        self.peak = 0.0

    def look(self):
        self.peak = max(self.peak, self.broker.rss - self.before)
        return self.peak

    def assert_below(self, test, mib):
        """Sanitizers keep freed memory and shadow it: there the number means nothing."""
        self.look()
        print(f"memory grew by {self.peak:.1f} MiB, bound {mib}")
        if not Settings.sanitizer:
            test.assertLess(self.peak, mib, "memory of the broker grew beyond its bound")
