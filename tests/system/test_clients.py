# SPDX-License-Identifier: Apache-2.0
"""Who clients are and how they go: identity, takeover, heartbeats, requests."""
import os
import signal
import subprocess
import sys
import time
import unittest

import zmq

from broker import Broker, child_setup, until
from peers import Client, Failure, JsonClient, pack, random_id, socket, unpack

HERE = os.path.dirname(os.path.abspath(__file__))


def event(path, payload=None):
    return {"path": path, "payload": payload}


def names(client):
    return {row["name"] for row in client.status("clients")["clients"]}


class Process:
    """A client in a process of its own, to be stopped and killed."""

    def __init__(self, broker, **options):
        arguments = [f"{key}={value}" for key, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "peer.py"), broker.door("listen"), *arguments],
            stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, preexec_fn=child_setup())
        assert self.process.stdout.readline() == "ready\n"

    def signal(self, number):
        self.process.send_signal(number)

    def ask(self, question):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


class Hello(unittest.TestCase):
    def test_welcome_says_what_the_protocol_promises(self):
        with Broker("--server-id", "7", "--heartbeat", "4s") as broker, Client(broker, hello=False) as client:
            welcome = client.request("hello", version=1, epoch=0)
            self.assertEqual((welcome["version"], welcome["server"], welcome["last"]), (1, 7, 0))
            self.assertEqual(welcome["features"], ["lives"])
            self.assertEqual(set(welcome["limits"]), {"max_message", "max_events", "max_depth", "max_path",
                                                      "max_patterns", "max_inflight", "heartbeat"})
            self.assertEqual(welcome["limits"]["heartbeat"], 4000)

    def test_a_higher_version_is_answered_with_ours_and_a_lower_one_refused(self):
        with Broker() as broker:
            with Client(broker, hello=False) as client:
                self.assertEqual(client.request("hello", version=99, epoch=0)["version"], 1)
            with Client(broker, hello=False) as client, self.assertRaises(Failure) as caught:
                client.request("hello", version=0, epoch=0)
            self.assertEqual(caught.exception.code, "bad_version")

    def test_requests_before_hello_and_a_second_hello_are_refused(self):
        with Broker() as broker, Client(broker, hello=False) as client:
            for op, fields in (("subscribe", {"sub": 1, "patterns": ["*"]}), ("unsubscribe", {"sub": 1}), ("status", {}),
                               ("matches", {"path": "a"})):
                with self.assertRaises(Failure, msg=op) as caught:
                    client.request(op, **fields)
                self.assertEqual(caught.exception.code, "hello_first")
            with self.assertRaises(Failure) as caught:
                client.publish(event("a"))
            self.assertEqual(caught.exception.code, "hello_first")
            client.send("ping", token=5)  # who was forgotten must not take a pong for a sign of life
            self.assertEqual(client.expect("error")["code"], "hello_first")
            client.request("hello", version=1, epoch=0)
            client.send("ping", token=6)
            self.assertEqual(client.expect("pong")["token"], 6)
            with self.assertRaises(Failure) as caught:
                client.request("hello", version=1, epoch=0)
            self.assertEqual(caught.exception.code, "bad_state")

    def test_the_same_client_id_takes_over(self):
        identity = random_id()
        with Broker() as broker, Client(broker, client=identity, name="old") as old, Client(broker) as other:
            old.subscribe(["a"])
            with Client(broker, client=identity, name="new") as new:
                self.assertEqual(old.expect("goodbye")["code"], "exists")
                self.assertEqual(names(other), {"test", "new"})
                new.subscribe(["a"])
                old.send("publish", [event("a", "old")], number=1, level=1)
                old.send("ping", token=1)
                self.assertEqual(old.receive()["op"], "error")
                other.publish(event("a", "other"))
                self.assertEqual(new.collect_events(1).payloads, ["other"])
                self.assertTrue(old.waiting == [] or all(m["op"] in ("error", "pong") for m in old.waiting))
                self.assertEqual(other.counter("clients_taken_over"), 1)


class RoutingId(unittest.TestCase):
    def only_refusals(self, dealer, milliseconds):
        """Whatever came, no message that was meant for somebody else."""
        while dealer.poll(milliseconds):
            message = unpack(b"".join(dealer.recv_multipart()))[0]
            self.assertEqual((message[0], message[3]), (22, "bad_routing_id"))

    def refused(self, broker, routing_id):
        dealer = socket(zmq.DEALER, broker.door(), ROUTING_ID=routing_id)
        dealer.send(pack([1, 1, 1, None, 0]))
        answer = unpack(b"".join(dealer.recv_multipart()))[0]
        dealer.send(pack([3, 2, 1, ["*"]]))
        self.assertEqual(unpack(b"".join(dealer.recv_multipart()))[0][3], "bad_routing_id")
        self.assertEqual((answer[0], answer[3]), (22, "bad_routing_id"))
        return dealer

    def test_a_routing_id_of_the_peer_is_refused_and_gets_nothing(self):
        with Broker() as broker, Client(broker) as client:
            client.subscribe(["*"])
            dealers = [self.refused(broker, name) for name in (b"me", b"x" * 255, b"12345", b"\x01\x00\x00\x00\x01")]
            client.publish(event("a", 1))
            client.collect_events(1)
            for dealer in dealers:
                self.only_refusals(dealer, 20)
                dealer.close()

    def test_an_impostor_gets_no_frame_and_the_first_comer_keeps_nobody_out(self):
        with Broker() as broker, Client(broker) as client:
            first = self.refused(broker, b"victim")
            impostor = socket(zmq.DEALER, broker.door(), ROUTING_ID=b"victim")
            impostor.send(pack([1, 1, 1, None, 0]))
            client.subscribe(["*"])
            client.publish(event("a", 1))
            client.collect_events(1)
            self.only_refusals(impostor, 50)
            self.only_refusals(first, 0)
            with Client(broker) as victim:
                self.assertEqual(victim.publish(event("a", 2))["level"], 1)
            first.close()
            impostor.close()


class Heartbeat(unittest.TestCase):
    def test_a_killed_client_is_gone_after_three_intervals(self):
        with Broker() as broker, Client(broker) as watcher, Process(broker, name="victim", heartbeat=200) as victim:
            self.assertIn("victim", names(watcher))
            victim.signal(signal.SIGKILL)
            began = time.monotonic()
            until(lambda: "victim" not in names(watcher), "the victim to be forgotten", deadline=10)
            took = time.monotonic() - began
            print(f"gone after {took:.2f} s")
            if not broker_is_slow():
                self.assertLess(took, 2.0)
            self.assertEqual(watcher.status("broker")["broker"]["subscriptions"], 0)

    def test_a_stopped_client_is_gone_and_told_to_say_hello_when_it_goes_on(self):
        with Broker() as broker, Client(broker) as watcher, Process(broker, name="victim", heartbeat=200) as victim:
            victim.signal(signal.SIGSTOP)
            until(lambda: "victim" not in names(watcher), "the victim to be forgotten", deadline=10)
            self.assertEqual(watcher.counter("clients_expired"), 1)
            victim.signal(signal.SIGCONT)
            # its connection has ended too: what it sends before it sees that is lost
            answers = until(lambda: [a for a in (victim.ask("status"),) if a != "silence"], "an answer")
            self.assertEqual(answers, ["hello_first"])

    def test_who_answers_ping_stays(self):
        with Broker() as broker, Client(broker) as watcher, Client(broker, name="idle", heartbeat=100) as idle:
            self.assertEqual(idle.welcome["limits"]["heartbeat"], 100)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                idle.receive(0.05)
            self.assertGreaterEqual(idle.pings, 5)
            self.assertIn("idle", names(watcher))
            self.assertEqual(watcher.counter("clients_expired"), 0)

    def test_with_interval_0_the_broker_waits_for_ever_and_sends_no_ping(self):
        with Broker("--heartbeat", "100ms") as broker, Client(broker, name="quiet", heartbeat=0) as quiet, \
                Client(broker, heartbeat=100) as other:
            until(lambda: other.receive(0.05) is None and other.pings >= 8, "eight pings to another client")
            self.assertIn("quiet", names(other))
            self.assertTrue(quiet.is_silent(0))
            self.assertEqual(quiet.pings, 0)

    def test_who_does_not_answer_ping_is_held_at_the_bound_of_what_is_on_its_way(self):
        with Broker("--inflight", "256K") as broker, Client(broker) as publisher, \
                Client(broker, answers_ping=False) as client:
            ledger = client.subscribe(["a"], bytes=1 << 30, events=1 << 30)
            for number in range(60):
                publisher.publish(event("a", [number, "x" * 50000]))
            while client.receive(0.2) is not None:
                pass
            self.assertLess(len(ledger.events), 20)
            self.assertGreater(len(ledger.events), 4)
            client.answers_ping = True
            client.send("pong", token=client.pinged)
            self.assertEqual([payload[0] for payload in client.collect_events(60).payloads], list(range(60)))


def broker_is_slow():
    from broker import Settings
    return bool(Settings.sanitizer)


class Requests(unittest.TestCase):
    def test_matches_waits_for_subscriptions(self):
        with Broker() as broker, Client(broker) as client, Client(broker) as other:
            self.assertEqual(client.request("matches", path="a/b")["value"], {"matches": 0})
            client.send("matches", corr=77, path="a/b", min=2, timeout=20000)
            other.subscribe(["a/*"], sub=1)
            self.assertEqual(other.request("matches", path="a/b", min=1)["value"], {"matches": 1})
            other.subscribe(["?/b", "a/b"], sub=2)
            answer = client.wait(lambda message: message.get("corr") == 77, "matches")
            self.assertEqual(answer["value"], {"matches": 2})
            with self.assertRaises(Failure) as caught:
                client.request("matches", path="a/b", min=3, timeout=50)
            self.assertEqual(caught.exception.code, "timeout")

    def test_routed_says_how_many_match(self):
        with Broker() as broker, Client(broker) as client:
            self.assertEqual(client.publish(event("a"), level=2)["matches"], 0)
            client.subscribe(["a"], sub=1)
            client.subscribe(["*"], sub=2)
            self.assertEqual(client.publish(event("a"), level=2)["matches"], 2)
            self.assertEqual(client.publish(event("a"), event("b"), level=2)["matches"], 1)
            self.assertIsNone(client.publish(event("a"), level=1)["matches"])
            for level in (3, 4, 5):
                with self.assertRaises(Failure) as caught:
                    client.publish(event("a"), level=level)
                self.assertEqual(caught.exception.code, "unsupported")

    def test_events_are_refused_one_by_one(self):
        with Broker() as broker, Client(broker) as client:
            client.subscribe(["*"])
            ack = client.publish(event("a", 1), event("bad/*", 2), event("$sys", 3), event("x" * 201, 4), event("a", 5))
            self.assertEqual(ack["positions"], [["a", 1, 1], ["a", 2, 1]])
            self.assertEqual([row[0] for row in ack["refused"]], [1, 2, 3])
            self.assertEqual([row[1] for row in ack["refused"]], ["bad_path", "refused", "bad_path"])
            self.assertEqual(client.collect_events(2).payloads, [1, 5])

    def test_a_sub_in_use_and_one_that_is_not_there(self):
        for kind in (Client, JsonClient):
            with Broker() as broker, kind(broker) as client:
                client.subscribe(["a"])
                with self.assertRaises(Failure) as caught:
                    client.subscribe(["b"])
                self.assertEqual(caught.exception.code, "exists")
                client.unsubscribe()
                with self.assertRaises(Failure) as caught:
                    client.request("unsubscribe", sub=1)
                self.assertEqual(caught.exception.code, "not_found")
                client.publish(event("a"))
                self.assertTrue(client.is_silent(0.05))

    def test_an_event_that_several_patterns_match_comes_once(self):
        with Broker() as broker, Client(broker) as client:
            client.subscribe(["a/b", "a/*", "*", "?/b", "a/?"])
            client.publish(event("a/b", 1), event("a", 2))
            self.assertEqual(client.collect_events(2).payloads, [1, 2])
            self.assertTrue(client.is_silent(0.05))
