# SPDX-License-Identifier: Apache-2.0
"""Where subscriptions begin (PROTOCOL 7.1), and how they go on after a reconnection and a restart."""
import time
import unittest

from broker import Broker
from peers import Client, Failure, random_id


def event(path, payload=None):
    return {"path": path, "payload": payload}


def numbered(path, first, count, size=0):
    return [event(path, [number, "x" * size] if size else number) for number in range(first, first + count)]


class From(unittest.TestCase):
    def test_new_begins_with_the_next_event(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(*numbered("a/b", 1, 5))
            ledger = client.subscribe(["a/*"])
            self.assertEqual(ledger.covered, {"a": 5})
            client.publish(event("a/b", 6))
            self.assertEqual(client.collect_events(1).sequences, [6])
            self.assertTrue(client.is_silent())

    def test_last_begins_with_the_newest_matching_event_of_each_channel(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(event("a/x", 1), event("a/x", 2), event("a/y", 3), event("b/x", 4), event("c", 5))
            ledger = client.subscribe(["?/x"], start="last")
            client.collect_events(2)
            self.assertEqual([(e["path"], e["payload"]) for e in ledger.events], [("a/x", 2), ("b/x", 4)])
            client.publish(event("a/x", 6), event("c/x", 7))
            client.collect_events(4)
            self.assertEqual(ledger.payloads, [2, 4, 6, 7])

    def test_a_sequence_begins_there_in_each_channel(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(*numbered("a", 1, 10), *numbered("b", 1, 3))
            ledger = client.subscribe(["*"], start=4)
            client.collect_events(7)
            self.assertEqual(sorted(e["path"] for e in ledger.events), ["a"] * 7)
            self.assertEqual(ledger.sequences, [4, 5, 6, 7, 8, 9, 10])
            client.publish(event("b", 4))
            self.assertEqual(client.collect_events(8).events[-1]["seq"], 4)

    def test_a_sequence_of_the_future_begins_with_the_next_event(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(event("a", 1))
            ledger = client.subscribe(["a"], start=100)
            self.assertEqual(ledger.covered, {"a": 1})

    def test_a_time_begins_with_the_first_event_at_or_after_it(self):
        with Broker() as broker, Client(broker) as client:
            client.subscribe(["a"], sub=9)
            times = []
            for number in (1, 2, 3):
                client.publish(event("a", number))
                times.append(client.collect_events(number, sub=9).events[-1]["time"])
                time.sleep(0.002)  # so that the times differ
            client.subscribe(["a"], sub=1, start={"time": times[1]})
            self.assertEqual(client.collect_events(2).payloads, [2, 3])
            client.subscribe(["a"], sub=2, start={"time": times[1] + 1})
            self.assertEqual(client.collect_events(1, sub=2).payloads, [3])
            client.subscribe(["a"], sub=3, start={"time": times[2] + 3600 * 10**6})
            client.publish(event("a", 4))
            self.assertEqual(client.collect_events(1, sub=3).payloads, [4])
            client.subscribe(["a"], sub=4, start={"time": 1})
            self.assertEqual(client.collect_events(4, sub=4).payloads, [1, 2, 3, 4])

    def test_after_begins_behind_the_named_sequences_and_others_from_their_beginning(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(*numbered("a", 1, 5), *numbered("b", 1, 3))
            run = client.welcome["run"]
            ledger = client.subscribe(["*"], start={"run": run, "after": {"a": 3}})
            client.collect_events(5)
            self.assertEqual([(e["path"], e["seq"]) for e in ledger.events],
                             [("a", 4), ("a", 5), ("b", 1), ("b", 2), ("b", 3)])

    def test_a_start_that_nobody_understands_is_refused(self):
        with Broker() as broker, Client(broker) as client:
            for start in ("tomorrow", {"time": "x"}, {"run": 1}, {}, [1], -1, 1.5):
                with self.assertRaises(Failure, msg=repr(start)) as caught:
                    client.subscribe(["a"], start=start)
                self.assertIn(caught.exception.code, ("bad_argument", "malformed"))

    def test_what_is_not_kept_any_more_is_a_gap_with_the_reason_trimmed(self):
        with Broker("--ring", "64K") as broker, Client(broker) as client:
            for first in range(1, 1001, 50):
                client.publish(*numbered("a/b", first, 50, size=1000))
            ledger = client.subscribe(["a/*"], start=1)
            client.collect_events(1000)
            self.assertEqual(len(ledger.gaps), 1)
            channel, first, last, count, reason = ledger.gaps[0]
            self.assertEqual((channel, first, reason, count), ("a", 1, "trimmed", last))
            self.assertEqual(ledger.sequences, list(range(last + 1, 1001)))
            self.assertGreater(len(ledger.events), 10)


class Until(unittest.TestCase):
    def ended(self, client, sub=1):
        return client.wait(lambda message: message["op"] == "ended" and message["sub"] == sub, "the end")["code"]

    def test_what_now_was_is_told_and_ends_a_subscription_that_comes_back(self):
        with Broker() as broker, Client(broker) as publisher:
            publisher.publish(*numbered("a", 1, 5), *numbered("b", 1, 2))
            with Client(broker) as client:
                run = client.welcome["run"]
                ends = client.subscribe(["*"], start=1, until="now").ends
                self.assertEqual(ends, {"a": 5, "b": 2})
                self.assertEqual(self.ended(client), "done")
            publisher.publish(*numbered("a", 6, 3), *numbered("b", 3, 3), event("c"))
            with Client(broker) as client:
                ledger = client.subscribe(["*"], start={"run": run, "after": {"a": 3, "b": 2}}, until={"last": ends})
                self.assertEqual(ledger.ends, {"a": 5, "b": 2, "c": 0})
                self.assertEqual(self.ended(client), "done")
                self.assertEqual([(e["path"], e["seq"]) for e in ledger.events], [("a", 4), ("a", 5)])

    def test_what_a_restart_took_is_not_waited_for(self):
        broker = Broker().start()
        with Client(broker) as client:
            client.publish(*numbered("a", 1, 9))
            run = client.welcome["run"]
        broker.stop()
        with broker.restart(), Client(broker) as client:
            client.publish(event("a", "after"))
            ledger = client.subscribe(["*"], start={"run": run, "after": {"a": 7}}, until={"last": {"a": 9}})
            self.assertEqual(ledger.ends, {"a": 0})
            self.assertEqual(self.ended(client), "done")
            self.assertEqual(ledger.gaps, [("a", 8, None, None, "restart")])
            self.assertEqual(ledger.events, [])

    def test_more_than_there_is_is_not_waited_for(self):
        with Broker() as broker, Client(broker) as client:
            client.publish(*numbered("a", 1, 3))
            ledger = client.subscribe(["*"], start=1, until={"last": {"a": 100, "nowhere": 7}})
            self.assertEqual(ledger.ends, {"a": 3})
            self.assertEqual(self.ended(client), "done")
            self.assertEqual(ledger.sequences, [1, 2, 3])

    def test_only_who_ends_now_is_told_an_end(self):
        with Broker() as broker, Client(broker) as client:
            self.assertIsNone(client.subscribe(["*"], sub=1).ends)
            self.assertIsNone(client.subscribe(["*"], sub=2, until=7).ends)
            self.assertEqual(client.subscribe(["*"], sub=3, until="now").ends, {})

    def test_an_end_that_nobody_understands_is_refused(self):
        with Broker() as broker, Client(broker) as client:
            for end in ("then", 0, -1, {}, {"last": 3}, {"last": {"a": "x"}}, {"last": [1]}, {"time": "x"}, [1],
                        {"last": {}, "time": 1}, {"first": {}}):
                with self.assertRaises(Failure, msg=repr(end)) as caught:
                    client.subscribe(["a"], until=end)
                self.assertIn(caught.exception.code, ("bad_argument", "malformed"))


class Return(unittest.TestCase):
    """Reconnections, each a new socket as PROTOCOL 8 asks."""

    def test_resuming_neither_loses_nor_repeats(self):
        with Broker() as broker, Client(broker) as publisher:
            got, covered, sent = [], {}, 0
            for _ in range(20):
                with Client(broker) as client:
                    run = client.welcome["run"]
                    ledger = client.subscribe(["a/*"], start={"run": run, "after": covered})
                    for _ in range(10):
                        publisher.send("publish", numbered("a/b", sent + 1, 7), number=0)
                        sent += 7
                    client.collect(lambda: len(ledger.events) >= 31, "some events")
                    got += ledger.sequences
                    covered = ledger.covered
            with Client(broker) as client:
                client.subscribe(["a/*"], start={"run": run, "after": covered})
                got += client.collect_events(sent - len(got)).sequences
            self.assertEqual(got, list(range(1, sent + 1)))

    def test_a_restart_of_the_broker_is_a_gap_and_what_came_after_it_follows(self):
        broker = Broker().start()
        with Client(broker) as client:
            client.publish(*numbered("a", 1, 9), event("b"))
            run = client.welcome["run"]
        broker.stop()
        with broker.restart(), Client(broker) as client:
            self.assertNotEqual(client.welcome["run"], run)
            client.publish(event("a", "after"), event("c", "other"))
            ledger = client.subscribe(["*"], start={"run": run, "after": {"a": 7, "b": 1}})
            client.collect(lambda: len(ledger.events) == 2 and len(ledger.gaps) == 2, "gaps and events")
            self.assertEqual(sorted(ledger.gaps), [("a", 8, None, None, "restart"), ("b", 2, None, None, "restart")])
            self.assertEqual(ledger.payloads, ["after", "other"])

    def test_repetitions_of_what_was_acknowledged_are_acknowledged_once_more_and_published_once(self):
        identity = random_id()
        with Broker() as broker, Client(broker) as watcher:
            watcher.subscribe(["a"])
            with Client(broker, client=identity, epoch=1) as client:
                self.assertEqual(client.publish(event("a", 1))["positions"], [["a", 1, 1]])
                self.assertEqual(client.publish(event("a", 2))["positions"], [["a", 2, 1]])
                again = client.publish(event("a", 2), number=2)
                self.assertEqual((again["matches"], again["positions"]), (None, None))
            with Client(broker, client=identity, epoch=1) as client:
                self.assertEqual(client.welcome["last"], 2)
                for number in (1, 2):
                    self.assertIsNone(client.publish(event("a", number), number=number)["positions"])
                self.assertEqual(client.publish(event("a", 3))["positions"], [["a", 3, 1]])
            with Client(broker, client=identity, epoch=2) as client:
                self.assertEqual(client.welcome["last"], 0)
                self.assertEqual(client.publish(event("a", 4), number=1)["positions"], [["a", 4, 1]])
            self.assertEqual(watcher.collect_events(4).payloads, [1, 2, 3, 4])
            self.assertEqual(watcher.counter("batches_repeated"), 3)

    def test_a_number_that_skips_is_refused(self):
        with Broker() as broker, Client(broker, client=random_id()) as client:
            client.publish(event("a"), number=7)  # the first one of a connection may be any
            with self.assertRaises(Failure) as caught:
                client.publish(event("a"), number=9)
            self.assertEqual(caught.exception.code, "bad_sequence")
            client.publish(event("a"), number=8)
