# SPDX-License-Identifier: Apache-2.0
"""The same events in every direction: whoever publishes, whoever subscribes, over tcp and ipc."""
import json
import unittest

import msgpack
import zmq

from broker import Broker, until
from peers import Client, JsonClient, event_array, from_json, pack, published, socket, to_json

EVENTS = [
    {"path": "plant/temp", "payload": 21.5},
    {"path": "plant/text", "payload": "gr\u00fc\u00df dich"},
    {"path": "plant/nothing", "payload": None},
    {"path": "plant/int", "payload": [0, -1, 2**31, -2**63, 2**63 - 1]},
    {"path": "plant/uint", "payload": 2**63},
    {"path": "plant/binary", "payload": bytes(range(256)), "payload_type": "image/x-test"},
    {"path": "plant/nested", "payload": {"a": [{"b": [True, False, None, {}]}, []]}},
    {"path": "plant//deep/", "payload": 1, "client_id": "the-7th", "priority": -3, "source_time": 1234567890,
     "headers": {"k": "v", "empty": ""}},
    {"path": "plant", "payload": 0.1, "client_id": 42},
]


def json_events(events):
    return json.dumps([to_json(dict(event, payload={"$uint": str(event["payload"])} if event["payload"] == 2**63
                                    else event["payload"])) for event in events]).encode()


class JsonUints(JsonClient):
    """JSON that also writes integers above 2^63-1."""

    def encode(self, op, events, fields):
        return super().encode(op, json.loads(json_events(events)), fields)


def publish_dealer(kind):
    def publish(broker, transport, events):
        with kind(broker, transport=transport) as client:
            assert client.publish(*events, level=2)["level"] == 2
    return publish


def publish_push(broker, transport, data):
    push = socket(zmq.PUSH, broker.door("ingest", transport))
    push.setsockopt(zmq.LINGER, 10000)
    push.send(data)
    push.close()


def publish_pub(broker, transport, data):
    """A PUB drops until it is connected: probe first."""
    with Client(broker) as watcher:
        pub = socket(zmq.PUB, broker.door("ingest_sub", transport))
        before = watcher.counter("ingest_events")
        until(lambda: pub.send(pack(["probe", 0])) or watcher.counter("ingest_events") > before, "PUB to connect")
        pub.send(data)
        pub.setsockopt(zmq.LINGER, 10000)
        pub.close()


def bare(events):
    return pack(*map(event_array, events))


PUBLISHERS = {
    "dealer msgpack": publish_dealer(Client),
    "dealer json": publish_dealer(JsonUints),
    "push msgpack": lambda broker, transport, events: publish_push(broker, transport, bare(events)),
    "push json": lambda broker, transport, events: publish_push(broker, transport, json_events(events)),
    "pub msgpack": lambda broker, transport, events: publish_pub(broker, transport, bare(events)),
    "pub json": lambda broker, transport, events: publish_pub(broker, transport, json_events(events)),
}


def window(broker, door, transport, topic="plant"):
    """A SUB that is known to be subscribed."""
    sub = socket(zmq.SUB, broker.door(door, transport))
    sub.subscribe(topic)
    sub.subscribe("probe")
    with Client(broker) as client:
        until(lambda: client.publish({"path": "probe", "payload": 0}) and sub.poll(20), "SUB to be subscribed")
        client.publish({"path": "probe", "payload": "last"})
    decode = window_json if door == "publish_json" else window_msgpack
    while decode(sub.recv_multipart())["payload"] != "last":
        pass
    sub.unsubscribe("probe")
    return sub


def window_msgpack(frames):
    path, event = frames[0], msgpack.unpackb(frames[1], raw=False)
    assert path.decode() == event["path"]
    return event


def window_json(frames):
    path, event = frames[0], from_json(json.loads(frames[1]))
    assert path.decode() == event["path"]
    return event


def window_events(sub, decode, n):
    events = []
    while len(events) < n:
        event = decode(sub.recv_multipart())
        if event["path"] != "probe":
            events.append(event)
    return events


class Exchange(unittest.TestCase):
    def exchange(self, name, transport):
        with Broker() as broker:
            clients = [Client(broker, transport=transport), JsonClient(broker, transport=transport)]
            for client in clients:
                client.subscribe(["plant/*"])
            plain = window(broker, "publish", transport)
            text = window(broker, "publish_json", "tcp")
            PUBLISHERS[name](broker, transport, EVENTS)
            got = [client.collect_events(len(EVENTS)).events for client in clients]
            got.append(window_events(plain, window_msgpack, len(EVENTS)))
            got.append(window_events(text, window_json, len(EVENTS)))
            self.assertEqual([published(event) for event in got[0]], EVENTS)
            first = got[0][0]
            for others in got:
                self.assertEqual([event["seq"] for event in others], list(range(1, len(EVENTS) + 1)))
                for event, reference in zip(others, got[0]):
                    self.assertEqual(published(event), published(reference))
                    for member in ("id", "seq", "time", "source"):
                        self.assertEqual(event[member], reference[member], member)
            self.assertEqual(first["source"]["type"], "client" if name.startswith("dealer") else "window")
            for peer in (*clients, plain, text):
                peer.close()


for publisher in PUBLISHERS:
    for carrier in ("tcp", "ipc"):
        setattr(Exchange, f"test_from_{publisher.replace(' ', '_')}_to_everybody_over_{carrier}",
                lambda self, name=publisher, transport=carrier: self.exchange(name, transport))


class Nexus(unittest.TestCase):
    EVENT = {"id": 7, "type": "line1", "priority": 2, "payload": {"x": [1, 2]}}

    def test_the_event_of_async_nexus_is_taken_on_every_ingest(self):
        text = json.dumps(self.EVENT).encode()
        with Broker() as broker, Client(broker) as watcher, Client(broker, hello=False) as sender:
            watcher.subscribe(["line1", "3"])
            sender.send_raw(text)
            watcher.collect_events(1)
            publish_push(broker, "tcp", text)
            watcher.collect_events(2)
            publish_pub(broker, "tcp", text)
            watcher.collect_events(3)
            with JsonClient(broker) as client:
                client.publish(self.EVENT)
                client.publish(dict(self.EVENT, type=3))
            events = watcher.collect_events(5).events
            for event in events[:4]:
                self.assertEqual(published(event),
                                 {"path": "line1", "payload": {"x": [1, 2]}, "priority": 2, "client_id": 7})
            self.assertEqual(events[4]["path"], "3")

    def test_the_shape_nexus_is_given_on_request_to_that_subscription_only(self):
        with Broker() as broker, JsonClient(broker) as client, JsonClient(broker) as publisher:
            client.request("subscribe", sub=1, patterns=["line1"], options={"shape": "nexus"})
            client.request("subscribe", sub=2, patterns=["line1"])
            client.ledgers.clear()  # they want events with sequences
            publisher.publish(self.EVENT)
            publisher.publish({"path": "line1", "payload": "no id"})
            got = {1: [], 2: []}
            while len(got[1]) < 2 or len(got[2]) < 2:
                message = client.expect("deliver")
                got[message["sub"]] += message["events"]
            self.assertEqual(got[1], [self.EVENT, {"id": 2, "type": "line1", "priority": 0, "payload": "no id"}])
            self.assertEqual([event["seq"] for event in got[2]], [1, 2])


class Pairs(unittest.TestCase):
    def test_two_frames_are_a_path_and_json_or_text_or_binary(self):
        with Broker() as broker, Client(broker) as watcher:
            watcher.subscribe(["*"])
            push = socket(zmq.PUSH, broker.door("ingest", "ipc"))
            bodies = [b'{"x":[1,2.5,true]}', b"21.5", b"just text", b"\xff\xfe\x00", b""]
            for body in bodies:
                push.send_multipart([b"plant/a", body])
            ledger = watcher.collect_events(len(bodies))
            self.assertEqual(ledger.payloads, [{"x": [1, 2.5, True]}, 21.5, "just text", b"\xff\xfe\x00", ""])
            push.close()

    def test_bare_events_need_no_hello(self):
        with Broker() as broker, Client(broker) as watcher, Client(broker, hello=False) as bare_client:
            watcher.subscribe(["plant/*"])
            bare_client.send_raw(pack(["plant/temp", 21.5]))
            bare_client.send_raw(b'{"path":"plant/temp","payload":22.5}')
            bare_client.send_raw(b' [{"path":"plant/temp","payload":1}, {"path":"plant/temp"}]')
            bare_client.send_raw(pack(["plant/", 3])[:1], pack(["plant/", 3])[1:])
            self.assertEqual(watcher.collect_events(5).payloads, [21.5, 22.5, 1, None, 3])
            self.assertTrue(bare_client.is_silent(0.05))
