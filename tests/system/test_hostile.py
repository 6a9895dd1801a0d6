# SPDX-License-Identifier: Apache-2.0
"""Peers that send nonsense: they get an error and a counter, and nobody else notices."""
import random
import socket as sockets
import struct
import time
import unittest

import msgpack
import zmq

from broker import Broker, Memory, Settings, until
from peers import NAMES, Client, JsonClient, pack, socket
from test_exchange import window

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


def event(path, payload=None):
    return {"path": path, "payload": payload}


class Healthy(Client):
    """A client that notices when others disturb it."""

    def __init__(self, broker):
        super().__init__(broker, name="healthy")
        self.subscribe(["healthy"])

    def works(self):
        ledger = self.ledgers[1]
        n = len(ledger.events)
        assert self.publish(event("healthy", n))["level"] == 1
        self.collect_events(n + 1)
        assert ledger.payloads == list(range(n + 1)) and not ledger.gaps


def raw(broker, door="listen"):
    """A TCP connection that has not said anything."""
    host, port = broker.door(door)[len("tcp://"):].rsplit(":", 1)
    connection = sockets.create_connection((host, int(port)))
    connection.settimeout(20)
    return connection


def zmtp(broker, kind=b"DEALER"):
    """A TCP connection after the handshake of ZeroMQ."""
    connection = raw(broker)
    connection.sendall(GREETING)
    got = b""
    while len(got) < 64:
        got += connection.recv(4096)
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    connection.sendall(b"\x04" + bytes([len(body)]) + body)
    while len(got) < 66 or len(got) < 66 + got[65]:
        got += connection.recv(4096)
    return connection


def is_closed(connection):
    try:
        return connection.recv(65536) == b""
    except ConnectionError:
        return True


def malformed_heads():
    """Of every type of message: cut short, with fields missing, and of the wrong type."""
    right = {
        "hello": [1, 1, None, 0, {}], "publish": [1, 1], "subscribe": [1, 9, ["x"], "new", {}], "unsubscribe": [1, 9],
        "credit": [1, 2, 3], "ping": [1], "pong": [1], "status": [1, ["broker"]], "matches": [1, "a", 0, 0],
        "goodbye": ["closed", "x"],
    }
    for number, (name, _) in NAMES.items():
        fields = right.get(name)
        if fields is None:
            yield name, pack([number])
            continue
        whole = pack([number, *fields])
        for cut in range(1, len(whole)):
            yield name, whole[:cut]
        for at, field in enumerate(fields):
            wrong = {"not": "this"} if not isinstance(field, dict) else 7
            if name not in ("status", "ping", "pong"):
                yield name, pack([number, *fields[:at], wrong, *fields[at + 1:]])


class Malformed(unittest.TestCase):
    def test_each_malformed_message_is_an_error_to_its_sender(self):
        with Broker() as broker, Healthy(broker) as healthy:
            heads = list(malformed_heads())
            for start in range(0, len(heads), 12):
                with Client(broker) as culprit:
                    for name, data in heads[start:start + 12]:
                        culprit.send_raw(data)
                        answer = culprit.receive(10)
                        self.assertIsNotNone(answer, f"{name}: {data!r}")
                        wanted = ("error", "ack") if name == "publish" else ("error",)  # its number may be used up
                        self.assertIn(answer["op"], wanted, f"{name}: {data!r} got {answer}")
                healthy.works()
            print(f"{len(heads)} malformed messages")
            self.assertGreater(healthy.counter("bad_messages"), len(heads) / 2)

    def test_malformed_json(self):
        texts = [b"{", b"[", b"{}", b'{"op":7}', b'{"op":"nothing"}', b'{"op":"subscribe"}', b'{"op":"hello","corr":"x"}',
                 b'{"op":"publish","number":1,"events":{}}', b'{"path":"a","payload":1,"other":2}', b'{"payload":1}',
                 b'{"op":"status","corr":1}x', b'{"a":1,"a":2}', b"[[]]", b'{"path":"a\xff"}', b"[" * 100000,
                 b'{"path":"a","payload":' + b'{"x":' * 50000, b'{"path":"\\ud800"}', b'{"path":"a","payload":1e999}']
        with Broker() as broker, Healthy(broker) as healthy:
            for text in texts:
                with JsonClient(broker) as culprit:
                    culprit.send_raw(text)
                    answer = culprit.receive()
                    self.assertTrue(answer["op"] == "error" or answer["entries"][0][4], f"{text[:60]}: {answer}")
                healthy.works()

    def test_bombs_of_depth_and_count(self):
        bombs = {
            "depth": b"\x93\x02\x00\x00"[:1] + b"\x02\x01\x01" + b"\x92\xa1a" + b"\x91" * 100000,
            "map depth": b"\x92\xa1a" + b"\x81\xa1k" * 100000,
            "33 deep": pack([2, 1, 1]) + b"\x92\xa1a" + b"\x91" * 33 + b"\xc0",
            "array32": pack([2, 1, 1]) + b"\x92\xa1a\xdd\xff\xff\xff\xff",
            "map32": pack([2, 1, 1]) + b"\x92\xa1a\xdf\xff\xff\xff\xff",
            "str32": pack([2, 1, 1]) + b"\x92\xa1a\xdb\xff\xff\xff\xff",
            "bin32": b"\x92\xa1a\xc6\xff\xff\xff\xff",
            "head": b"\xdd\xff\xff\xff\xff\x02",
            "patterns": b"\x94\x03\x01\x01\xdd\xff\xff\xff\xff",
            "reserved": b"\xc1" * 100,
            "bad utf-8": b"\x92\xa3a\xff\xfe\x01",
        }
        with Broker() as broker, Healthy(broker) as healthy:
            memory = Memory(broker)
            for name, bomb in bombs.items():
                with Client(broker) as culprit:
                    culprit.send_raw(bomb)
                    answer = culprit.receive()
                    self.assertTrue(answer["op"] == "error" or answer["entries"][0][4], f"{name}: {answer}")
                healthy.works()
            memory.assert_below(self, 16)

    def test_sixteen_strikes_shut_a_peer_out(self):
        with Broker() as broker, Healthy(broker) as healthy, Client(broker) as culprit:
            for _ in range(16):
                culprit.send_raw(b"\xc1")
            culprit.expect("goodbye")
            culprit.send("status", corr=99)  # it was ready; now it is nobody, or somebody new
            healthy.works()
            self.assertEqual(healthy.counter("clients_struck"), 1)
            self.assertEqual({message["op"] for message in culprit.waiting}, {"error"})
            answer = culprit.receive(0.2)
            self.assertTrue(answer is None or answer.get("code") == "hello_first", answer)

    def test_what_the_windows_cannot_take_is_counted(self):
        with Broker() as broker, Healthy(broker) as healthy:
            push = socket(zmq.PUSH, broker.door("ingest"))
            bad = [[b"\xc1"], [b"{"], [b"bad/*", b"1"], [b"a", b"b", b"c"], [b"\xff", b"1"], [b"x" * 201, b"1"],
                   [b"$sys", b"1"]]
            for frames in bad:
                push.send_multipart(frames)
            until(lambda: healthy.counter("ingest_refused") + healthy.counter("events_refused") >= len(bad), "the counters")
            healthy.works()
            push.close()


class Size(unittest.TestCase):
    LIMIT = 1 << 20

    def publish_of(self, size):
        payload = size - len(pack([2, 0], ["a", ""])) - 4
        data = pack([2, 0], ["a", "x" * payload])
        self.assertEqual(len(data), size)
        return data

    def test_messages_up_to_the_limit_are_taken_and_larger_ones_cost_the_connection(self):
        with Broker() as broker, Healthy(broker) as healthy:
            healthy.subscribe(["a"], sub=2, bytes=1 << 30)
            for size in (self.LIMIT - 1, self.LIMIT):
                with Client(broker) as client:
                    client.send_raw(self.publish_of(size))
                    client.status()
            self.assertEqual(len(healthy.collect_events(2, sub=2).events), 2)
            with Client(broker) as culprit:
                culprit.send_raw(self.publish_of(self.LIMIT + 1))
                healthy.works()
            self.assertEqual(len(healthy.ledgers[2].events), 2)

    def test_a_message_of_frames_that_is_larger_than_the_limit_is_an_error(self):
        with Broker() as broker, Healthy(broker) as healthy, Client(broker) as culprit:
            data = self.publish_of(self.LIMIT + 1)
            culprit.send_raw(data[:600000], data[600000:])
            self.assertEqual(culprit.expect("error")["code"], "too_big")
            healthy.works()

    def test_sixteen_frames_are_taken_and_more_are_an_error(self):
        with Broker() as broker, Healthy(broker) as healthy, Client(broker) as client:
            data = pack([8, 1, ["broker"]])
            client.send_raw(*[data[i:i + 1] for i in range(len(data))][:15], data[15:])
            client.expect("result")
            for n in (17, 1000, 100000):
                client.send_raw(*[b"\x00"] * n)
                self.assertEqual(client.expect("error")["code"], "too_big")
                healthy.works()

    def test_announcing_a_giant_costs_nothing_but_the_connection(self):
        with Broker() as broker, Healthy(broker) as healthy:
            memory = Memory(broker)
            for size in (self.LIMIT + 1, 1 << 31, 1 << 62, (1 << 63) + 5, (1 << 64) - 1):
                connection = zmtp(broker)
                connection.sendall(b"\x02" + struct.pack(">Q", size) + b"x" * 100)
                self.assertTrue(is_closed(connection), size)
                connection.close()
                healthy.works()
            memory.assert_below(self, 16)


class Nonsense(unittest.TestCase):
    def test_random_bytes(self):
        chance = random.Random(20)
        samples = [data for _, data in malformed_heads()]
        with Broker() as broker, Healthy(broker) as healthy:
            for round_ in range(40 * Settings.size):
                culprit = Client(broker, hello=chance.random() < 0.7)
                for _ in range(50):
                    kind = chance.random()
                    if kind < 0.4:
                        data = chance.randbytes(chance.randrange(200))
                    elif kind < 0.8:
                        data = bytearray(chance.choice(samples))
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    else:
                        data = b'{"op":' + chance.randbytes(chance.randrange(20)) + b"}"
                    culprit.send_raw(*[bytes(data)] * chance.choice((1, 1, 1, 2)))
                if round_ % 4 == 0:
                    healthy.works()
                culprit.socket.setsockopt(zmq.LINGER, 2000)
                culprit.socket.close()
            healthy.works()
            self.assertGreater(healthy.counter("bad_messages"), 100)

    def end_of_garbage(self, broker, healthy):
        """Seconds until connections that never finish a handshake are gone."""
        chance = random.Random(3)
        connections = [raw(broker, door) for door in ("listen", "publish", "ingest", "ingest_sub") for _ in range(50)]
        for number, connection in enumerate(connections):
            if number % 3 == 1:
                connection.sendall(chance.randbytes(100))
            elif number % 3 == 2:
                connection.sendall(GREETING[:chance.randrange(1, 64)])
        began = time.monotonic()
        healthy.works()
        for connection in connections:
            self.assertTrue(drained(connection))
            connection.close()
        return time.monotonic() - began

    def test_raw_garbage_and_idle_connections_are_gone_after_the_handshake_time(self):
        with Broker() as broker, Healthy(broker) as healthy:
            seconds = self.end_of_garbage(broker, healthy)
            for _ in range(3):  # a machine that is busy with something else says nothing about the broker
                if seconds >= 2 * 3 and not Settings.sanitizer:
                    seconds = self.end_of_garbage(broker, healthy)
            print(f"all gone after {seconds:.1f} s")
            if not Settings.sanitizer:
                self.assertLess(seconds, 2 * 3)
            healthy.works()

    def test_peers_of_the_wrong_kind(self):
        with Broker() as broker, Healthy(broker) as healthy:
            wide = window(broker, "publish", "tcp")
            peers = []
            for door in ("listen", "publish", "ingest", "ingest_sub"):
                for kind in (zmq.REQ, zmq.DEALER, zmq.PUB, zmq.SUB, zmq.PUSH, zmq.ROUTER, zmq.XPUB, zmq.XSUB):
                    peers.append(socket(kind, broker.door(door)))
                    if kind in (zmq.REQ, zmq.DEALER, zmq.PUSH):
                        try:
                            peers[-1].send(b"\x00\x01", zmq.DONTWAIT)
                        except zmq.Again:
                            pass
            healthy.works()
            healthy.publish(event("plant", 1))
            self.assertEqual(msgpack.unpackb(wide.recv_multipart()[1])["payload"], 1)
            for peer in (wide, *peers):
                peer.close()


def drained(connection):
    while True:
        try:
            if connection.recv(65536) == b"":
                return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False
