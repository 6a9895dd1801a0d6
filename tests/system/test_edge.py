# SPDX-License-Identifier: Apache-2.0
"""JSON at the edge: what comes in stands while what goes out is converted, and what cannot be taken is answered as it is
in MessagePack."""
import unittest

import zmq

from broker import Broker, until
from peers import JsonClient, socket

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


if __name__ == "__main__":
    unittest.main()
