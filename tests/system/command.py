# SPDX-License-Identifier: Apache-2.0
"""`busbar sub` as a subscriber of the account."""
import json
import os
import queue
import subprocess
import tempfile
import threading

from account import demand, matches
from broker import Settings, child_setup, until


class Command:
    """`busbar sub`, which is the library: it goes on through kills and cuts by itself, and is told as one sequence of events and
    gaps. In a story that loses nothing --strict says so."""

    def __init__(self, world):
        self.world = world
        self.pattern = world.random.choice(("*", *(f"{channel}/*" for channel in world.channels)))
        self.came = {}  # channel -> sequence -> ident
        self.holes = {}  # channel -> ranges of gaps
        self.strict = ["--strict"] if world.is_calm else []
        endpoint = world.broker.door("listen", world.random.choice(("tcp", "ipc")))
        directory = tempfile.TemporaryDirectory(prefix="busbar-")
        ready = os.path.join(directory.name, "ready")
        self.process = subprocess.Popen(
            [Settings.busbar, "sub", "-q", "-u", endpoint, "--from", "all", "--json", "--connect-timeout", "60s",
             "--ready-file", ready, *self.strict, self.pattern],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, preexec_fn=child_setup())
        self.lines = queue.SimpleQueue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        until(lambda: os.path.exists(ready), "busbar sub is not subscribed")  # what is trimmed before is not missing
        directory.cleanup()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)

    def step(self):
        while not self.lines.empty():
            said = json.loads(self.lines.get())
            self.gap(**said["gap"]) if "gap" in said else self.event(said)
        demand(self.process.poll() is None, "busbar sub ended with", self.process.returncode)

    def gap(self, channel, reason, **places):
        first, last = places["from"], places["to"]
        if reason in ("restart", "retracted"):
            keep = first if reason == "retracted" else 0
            self.came[channel] = {n: ident for n, ident in self.came.get(channel, {}).items() if n < keep}
            self.holes[channel] = [hole for hole in self.holes.get(channel, []) if hole[0] < keep]
        else:
            self.holes.setdefault(channel, []).append((first, last))

    def event(self, event):
        channel = (event["path"].split("/") or [""])[0]
        came = self.came.setdefault(channel, {})
        demand(event["seq"] > max(came, default=0), "busbar sub:", channel, event["seq"], "came behind", max(came, default=0))
        came[event["seq"]] = tuple(event["payload"][:3])

    def missing(self):
        """(channel, sequence) of what is there and neither came as that nor is in a gap."""
        self.step()
        return [(channel, n) for channel in self.world.channels if matches(self.pattern, channel)
                for n, event in self.world.truth.current(channel).events.items()
                if self.came.get(channel, {}).get(n) != event.ident
                and not any(first <= n <= last for first, last in self.holes.get(channel, []))]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
