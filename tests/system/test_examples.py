# SPDX-License-Identifier: Apache-2.0
"""The programs of examples/plain and the command, talking with each other, and the programs of bus/examples."""
import json
import os
import subprocess
import sys
import unittest

from broker import Broker, Settings, child_setup, until
from peers import Client

PLAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "plain")


def start(*command, **options):
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=child_setup(), **options)


def plain(name, *arguments):
    return (sys.executable, os.path.join(PLAIN, name), *arguments)


def run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Plain(unittest.TestCase):
    def publishers(self, broker, transport):
        main = broker.door("listen", transport)
        yield plain("dealer_msgpack.py", main, "pub", "plant/temp", "21.5"), None
        yield plain("dealer_json.py", main, "pub", "plant/temp", "21.5"), None
        yield plain("push.py", broker.door("ingest", transport), "plant/temp", "21.5"), None
        yield plain("pub.py", broker.door("ingest_sub", transport), "plant/temp"), "21.5\n"
        if Settings.busbar:
            yield (Settings.busbar, "pub", "-u", main, "plant/temp", "21.5"), None

    def everybody(self, transport):
        with Broker() as broker, Client(broker) as watcher:
            publishers = list(self.publishers(broker, transport))
            n = str(len(publishers))
            main = broker.door("listen", transport)
            peers = {
                "msgpack": start(*plain("dealer_msgpack.py", main, "sub", "plant/*", n)),
                "json": start(*plain("dealer_json.py", main, "sub", "plant/?", n)),
            }
            if Settings.busbar:
                peers["command"] = start(Settings.busbar, "sub", "-u", main, "plant/#", "-n", n, "--raw")
            watcher.request("matches", path="plant/temp", min=len(peers), timeout=30000)
            window = start(*plain("sub.py", broker.door("publish", transport), ""))
            until_open(broker, watcher, window)
            for command, text in publishers:
                run(*command, text=text)
            lines = {name: peer.communicate(timeout=60)[0].splitlines() for name, peer in peers.items()}
            for name, peer in peers.items():
                self.assertEqual(peer.returncode, 0, name)
            expected = [f"{number} plant/temp 21.5" for number in range(1, len(publishers) + 1)]
            for name in ("msgpack", "json"):
                self.assertEqual(lines[name], ["subscribed", *expected])
            if Settings.busbar:
                self.assertEqual(lines["command"], ["21.5"] * len(publishers))
            got = []
            while len(got) < len(expected):
                line = window.stdout.readline().rstrip("\n")
                self.assertTrue(line, "the window's subscriber ended")
                if "probe" not in line:
                    got.append(line)
            self.assertEqual(got, expected)
            window.kill()
            window.communicate()

    def test_all_directions_over_tcp(self):
        self.everybody("tcp")

    def test_all_directions_over_ipc(self):
        self.everybody("ipc")


class Compiled(unittest.TestCase):
    """bus/examples, over tcp and ipc."""

    def example(self, name):
        return {os.path.basename(path): path for path in Settings.examples}[f"example_{name}"]

    def test_publisher_and_subscriber(self):
        for transport in ("tcp", "ipc"):
            with Broker() as broker, Client(broker) as watcher:
                url = broker.door("listen", transport)
                subscriber = start(self.example("subscriber"), url, "plant/*", "3")
                watcher.request("matches", path="plant/temp", min=1, timeout=30000)
                self.assertIn("1 subscriptions", run(self.example("publisher"), url))
                events = [json.loads(line) for line in subscriber.communicate(timeout=60)[0].splitlines()]
                self.assertEqual(subscriber.returncode, 0)
                self.assertEqual([event["path"] for event in events], ["plant/temp", "plant/state", "plant/alarm"])
                self.assertEqual(events[2]["payload"], {"high": True})

    def test_embedded_in_a_poll_loop_and_in_libuv(self):
        for name in ("poll_loop", "libuv_loop"):
            for transport in ("tcp", "ipc"):
                with Broker() as broker:
                    self.assertEqual(run(self.example(name), broker.door("listen", transport)), "1000 events\n")


def until_open(broker, client, window):
    """Publish until the subscriber of the window prints."""
    os.set_blocking(window.stdout.fileno(), False)

    def printed():
        client.publish({"path": "probe", "payload": 0})
        return window.stdout.readline()
    until(printed, "the window's subscriber to be subscribed", pause=0.05)
    os.set_blocking(window.stdout.fileno(), True)
