# SPDX-License-Identifier: Apache-2.0
"""JSON at the edge: what comes in stands while what goes out is converted, and what cannot be taken is answered as it is
in MessagePack."""
import unittest

import zmq

from broker import Broker, until
from peers import Client, Failure, JsonClient, pack, random_id, socket

LARGE = 270_000  # more than the core collects before it sends


class Conversion(unittest.TestCase):
    def test_requests_and_publishes_are_right_while_others_are_delivered_to(self):
        with Broker() as broker, JsonClient(broker) as reader, JsonClient(broker) as writer:
            ledger = reader.subscribe(["a/*"], bytes=1 << 40, events=1 << 40)
            for i in range(1, 101):
                writer.number += 1
                writer.send("publish", [{"path": "a/b", "payload": {"n": i, "large": "x" * (LARGE if i % 10 == 0 else i)}}],
                            number=writer.number, level=1)
                writer.subscribe([f"other/{i}/*"], sub=i)
                writer.wait_ack(writer.number)
            reader.collect(lambda: len(ledger.events) == 100, "all events")
            self.assertEqual([payload["n"] for payload in ledger.payloads], list(range(1, 101)))

    def test_bare_json_between_deliveries_to_its_sender(self):
        with Broker() as broker, JsonClient(broker) as client:
            ledger = client.subscribe(["*"], bytes=1 << 40, events=1 << 40)
            for i in range(40):
                client.send_raw(b'{"path":"a/large","payload":"' + b"x" * LARGE + b'"}')
                client.send_raw(b'{"path":"a/small","payload":%d}' % i)
            client.collect(lambda: len(ledger.events) == 80, "all events")
            self.assertEqual(ledger.payloads[1::2], list(range(40)))
            self.assertEqual(client.counter("bad_messages") + client.counter("events_refused"), 0)

    def test_a_small_event_behind_a_large_one_comes_through_a_window(self):
        with Broker() as broker, JsonClient(broker) as client:
            ledger = client.subscribe(["*"], bytes=1 << 40, events=1 << 40)
            shown = socket(zmq.SUB, broker.door("publish_json"), SUBSCRIBE=b"")
            push = socket(zmq.PUSH, broker.door("ingest"))
            until(lambda: shown.poll(0) or push.send_multipart([b"probe", b"0"]), "the publish window", pause=0.05)
            probes = client.counter("ingest_events")
            for i in range(20):
                push.send_multipart([b"w/large", b'"' + b"x" * LARGE + b'"'])
                push.send_multipart([b"w/small", b"%d" % i])
                push.send(b'{"path":"w/large","payload":"' + b"x" * LARGE + b'"}')
                push.send(b'{"path":"w/small","payload":%d}' % (100 + i))
            until(lambda: client.counter("ingest_events") >= probes + 80, "all events")
            small = lambda: [event["payload"] for event in ledger.events if event["path"] == "w/small"]
            client.collect(lambda: len(small()) >= 40, "the small ones")
            self.assertEqual(small(), [n for i in range(20) for n in (i, 100 + i)])
            self.assertEqual(client.counter("ingest_refused"), 0)
            shown.close()
            push.close()


class Refusals(unittest.TestCase):
    """The same sequence of good and bad publishes in both forms: the answers are the same, and all numbers are used up."""

    GOOD = {"path": "e/good", "payload": 1}

    def publishes(self, form):
        """The bytes of publish N for N from 1, and what is expected: ("ack", indexes refused) or an error code."""
        good = b'{"path":"e/good","payload":1}'
        json = lambda number, *events: b'{"op":"publish","number":%d,"level":1,"events":[%s]}' % (number, b",".join(events))
        array = ["e/good", 1]
        rows = [
            (json(1, good, good), pack([2, 1, 1], array, array), ("ack", [])),
            (json(2, good, b'{"path":"e/?","payload":1}', good), pack([2, 2, 1], array, ["e/?", 1], array),
             ("ack", [(1, "bad_path")])),
            (json(3, b'{"path":"e","other":1}', good), pack([2, 3, 1], ["e", 1, {"other": 1}], array),
             ("ack", [(0, "bad_event")])),
            (json(4, good, b'{"path":"e","payload":1e400}'), pack([2, 4, 1], array, ["e", 1, None]),
             ("ack", [(1, "bad_event")])),
            (json(5, good)[:-6], pack([2, 5, 1], array, array)[:-1], "malformed"),
            (b'{"op":"publish","number":6,"level":"high"}', pack([2, 6, "high"]), "malformed"),
            (json(7, good), pack([2, 7, 1], array), ("ack", [])),
        ]
        return [(row[0] if form is JsonClient else row[1], row[2]) for row in rows]

    def answer_of(self, client, number):
        try:
            entry = client.wait_ack(number)
        except Failure as failure:
            return failure.code
        return "ack", [tuple(refusal) for refusal in entry.get("refused") or []]

    def test_answers_are_those_of_messagepack(self):
        for form in (JsonClient, Client):
            with self.subTest(form=form.__name__), Broker() as broker, form(broker, client=random_id(), epoch=1) as client:
                ledger = client.subscribe(["e/*"])
                for number, (data, expected) in enumerate(self.publishes(form), 1):
                    client.send_raw(data)
                    self.assertEqual(self.answer_of(client, number), expected, data)
                client.collect_events(7)
                self.assertEqual(ledger.sequences, list(range(1, 8)))

    def test_a_publisher_goes_on_behind_what_was_refused(self):
        with Broker() as broker, JsonClient(broker, client=random_id(), epoch=1) as client:
            for number in range(1, 60, 2):
                client.send_raw(b'{"op":"publish","number":%d,"levle":1,"events":[]}' % number)
                self.assertEqual(self.answer_of(client, number), "bad_argument")
                client.number = number
                self.assertEqual(client.publish(self.GOOD)["positions"], [["e", (number + 1) // 2, 1]])
            self.assertIsNone(client.goodbye)

    def test_requests_are_answered_by_their_corr(self):
        with Broker() as broker, JsonClient(broker) as client:
            for op, number in (("subscribe", 3), ("unsubscribe", 4), ("status", 8), ("matches", 9), ("cursor", 11),
                               ("query", 12), ("channel", 13), ("log", 14)):
                with self.assertRaises(Failure) as caught:
                    client.request(op, nonsense=1)
                self.assertEqual((caught.exception.message["about"], caught.exception.code), (number, "bad_argument"))


if __name__ == "__main__":
    unittest.main()
