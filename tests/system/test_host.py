# SPDX-License-Identifier: Apache-2.0
"""busbard as a process: endpoints, signals, the end."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from broker import Broker, Settings, until
from peers import Client, Failure, JsonClient


def event(path, payload=None):
    return {"path": path, "payload": payload}


class Endpoints(unittest.TestCase):
    def refused(self, *arguments, code=1, says):
        with self.assertRaises(AssertionError) as caught:
            Broker(*arguments, doors=()).start()
        self.assertIn(f"ended with {code}", str(caught.exception))
        self.assertIn(says, str(caught.exception))

    def test_the_ports_file_names_what_is_bound(self):
        with Broker() as broker:
            self.assertEqual(set(broker.doors), {"listen", "publish", "publish_json", "ingest", "ingest_sub"})
            self.assertEqual([len(broker.doors[name]) for name in ("listen", "publish", "publish_json", "ingest", "ingest_sub")],
                             [2, 2, 1, 2, 2])
            for endpoint in (endpoint for door in broker.doors.values() for endpoint in door):
                self.assertRegex(endpoint, r"^(tcp://127\.0\.0\.1:[1-9]\d*|ipc:///.+)$")
            path = broker.ports_file
        self.assertFalse(os.path.exists(path))

    def test_an_address_beyond_loopback_needs_insecure(self):
        for endpoint in ("tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*"):
            for door in ("--listen", "--publish", "--ingest", "--ingest-sub"):
                self.refused(door, endpoint, says="--insecure")
        with Broker("--insecure", doors=("--listen", "tcp://0.0.0.0:*")) as broker:
            port = broker.doors["listen"][0].rsplit(":", 1)[1]
            with Client(broker, endpoint=f"tcp://127.0.0.1:{port}") as client:
                client.status()

    def test_a_path_on_which_a_broker_answers_is_not_taken_over(self):
        with Broker() as broker, Client(broker, transport="ipc") as client:
            self.refused("--listen", broker.door("listen", "ipc"), says="another broker")
            self.refused("--listen", broker.door("listen", "tcp"), says="in use")
            client.publish(event("a"))

    def test_a_path_left_behind_by_a_killed_broker_is_taken(self):
        broker = Broker(check=False).start()
        broker.kill()
        os.unlink(broker.ports_file)
        again = Broker(doors=("--listen", broker.door("listen", "ipc")))
        with again, Client(again, transport="ipc") as client:
            client.publish(event("a"))
        broker.temporary.cleanup()

    def test_endpoints_and_options_that_nobody_understands(self):
        self.refused("--listen", "udp://127.0.0.1:1", says="begins with")
        self.refused("--listen", "ipc://" + "x" * 200, says="ipc path")
        for arguments in (("--ring", "12X"), ("--nonsense",), ("--ring",), ("--heartbeat", "1h30"), ("--max-clients", "-1")):
            ended = subprocess.run([Settings.busbard, *arguments], capture_output=True, timeout=30, check=False)
            self.assertEqual(ended.returncode, 2, arguments)
            self.assertIn(b"busbard", ended.stderr)

    def test_help_and_version(self):
        for argument, says in (("--help", "--ports-file"), ("--version", "libzmq")):
            ended = subprocess.run([Settings.busbard, argument], capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))
            self.assertIn(says, ended.stdout)

    def test_the_log_can_be_json(self):
        with Broker("--log-format", "json") as broker:
            broker.signal(signal.SIGUSR1)
            rows = until(lambda: [json.loads(line) for line in broker.log if "BB-COUNTERS" in line], "the counters")
            self.assertEqual(rows[0]["id"], "BB-COUNTERS")


class Backends(unittest.TestCase):
    @staticmethod
    def plugin(name):
        return os.path.join(os.path.dirname(os.path.abspath(Settings.busbard)), "..", "tests", "conform", f"libconform_{name}.so")

    def test_one_from_a_shared_object_keeps_the_numbers_of_what_is_published(self):
        with Broker("--backend", self.plugin("plugin"), "--backend-option", "count=2") as broker, Client(broker) as client:
            self.assertEqual(client.publish({"path": "a/x", "payload": 1}, level=1)["level"], 1)
            ledger = client.subscribe(["a/*"])
            client.publish({"path": "a/x", "payload": 2}, level=1)
            client.collect_events(1)
            self.assertEqual(ledger.payloads, [2])
            self.assertEqual(client.request("log", action="status")["value"]["count"], 2)
            with self.assertRaises(Failure) as caught:
                client.request("log", action="verify")
            self.assertEqual(caught.exception.code, "unsupported")

    def test_one_that_cannot_be_used_says_why_and_nothing_is_started(self):
        for arguments, says in ((("--backend", self.plugin("plugin_old")), "version"),
                                (("--backend", self.plugin("plugin_none")), "bk_backend_driver"),
                                (("--backend", self.plugin("plugin_many")), "options"),
                                (("--backend", "./not-there.so"), "not-there.so"),
                                (("--backend", "nothing"), "built in"),
                                (("--backend", "lmdb"), "--data"),
                                (("--backend-option", "map-size=1G"), "--data"),
                                (("--backend", self.plugin("plugin"), "--backend-option", "colour=red"), "colour")):
            ended = subprocess.run([Settings.busbard, "--listen", "tcp://127.0.0.1:*", *arguments],
                                   capture_output=True, text=True, timeout=30, check=False)
            self.assertNotEqual(ended.returncode, 0, arguments)
            self.assertIn(says, ended.stderr, arguments)


class End(unittest.TestCase):
    def test_sigterm_delivers_everything_then_says_goodbye(self):
        total = 3000
        with Broker() as broker, Client(broker) as publisher, Client(broker) as client, JsonClient(broker) as other:
            ledger = client.subscribe(["a"], bytes=100000, events=1000000)
            for number in range(0, total, 100):
                publisher.publish(*[event("a", [number + i, "x" * 1000]) for i in range(100)])
            broker.signal(signal.SIGTERM)
            until(lambda: any("BB-ENDING" in line for line in broker.log), "the end to begin")
            with self.assertRaises(Failure) as caught:
                publisher.publish(event("a"))
            self.assertEqual(caught.exception.code, "shutting_down")
            while client.goodbye is None:
                assert client.receive() is not None, "neither events nor goodbye"
                client.send("credit", sub=1, bytes=ledger.bytes + 100000, events=1000000)
            self.assertEqual([payload[0] for payload in ledger.payloads], list(range(total)))
            self.assertEqual(client.goodbye, "shutting_down")
            self.assertEqual(publisher.expect("goodbye")["code"], "shutting_down")
            self.assertEqual(other.expect("goodbye")["code"], "shutting_down")
            self.assertEqual(broker.wait(), 0)

    def test_the_end_does_not_wait_longer_than_the_drain_time(self):
        with Broker("--drain", "300ms") as broker, Client(broker) as client:
            client.subscribe(["a"], bytes=0, events=0)
            client.publish(event("a", 1))
            began = time.monotonic()
            broker.signal(signal.SIGTERM)
            self.assertEqual(broker.wait(), 0)
            self.assertLess(time.monotonic() - began, 10)
            self.assertGreater(time.monotonic() - began, 0.29)
            self.assertEqual(client.expect("goodbye")["code"], "shutting_down")

    def test_a_second_signal_ends_at_once(self):
        with Broker("--drain", "1m", check=False) as broker, Client(broker) as client:
            client.subscribe(["a"], bytes=0, events=0)
            client.publish(event("a", 1))
            broker.signal(signal.SIGTERM)
            until(lambda: any("BB-ENDING" in line for line in broker.log), "the end to begin")
            broker.signal(signal.SIGINT)
            self.assertEqual(broker.wait(10), 1)


class Signals(unittest.TestCase):
    def test_a_storm_of_signals_loses_nothing(self):
        total = 20000 * Settings.size
        with Broker("--log-level", "error") as broker, Client(broker) as publisher, Client(broker) as client:
            client.subscribe(["a"], bytes=1 << 40, events=1 << 40)
            ended = threading.Event()
            sent = []

            def storm():
                while not ended.wait(0.001):
                    broker.signal(signal.SIGUSR1)
                    sent.append(1)
                    if len(sent) % 50 == 0:
                        broker.signal(signal.SIGHUP)
            thread = threading.Thread(target=storm)
            thread.start()
            try:
                for number in range(0, total, 10):
                    publisher.send("publish", [event("a", number + i) for i in range(10)], number=0)
                    if number % 100 == 0:
                        while client.receive(0) is not None:
                            pass
                until(lambda: len(sent) > 500, "a storm")
                self.assertEqual(client.collect_events(total).payloads, list(range(total)))
            finally:
                ended.set()
                thread.join()
            print(f"{len(sent)} signals")

    def test_a_stopped_broker_goes_on_where_it_was(self):
        with Broker() as broker, Client(broker, heartbeat=200) as client:
            client.subscribe(["a"])
            client.publish(event("a", 1))
            broker.signal(signal.SIGSTOP)
            client.number += 1
            client.send("publish", [event("a", 2)], number=client.number, level=1)
            end = time.monotonic() + 0.3  # longer than a heartbeat
            client.collect(lambda: time.monotonic() > end or not client.socket.poll(300), "silence")
            broker.signal(signal.SIGCONT)
            client.wait_ack(client.number)
            self.assertEqual(client.collect_events(2).payloads, [1, 2])
