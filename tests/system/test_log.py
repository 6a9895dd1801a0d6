# SPDX-License-Identifier: Apache-2.0
"""Logged channels through the real broker: levels, restarts, reading, queries, cursors, conditions."""
import os
import signal
import time
import unittest

from broker import Broker, until
from peers import Client, Failure, random_id


def logged(*arguments, **options):
    return Broker("--data", "{dir}/data", *arguments, **options)


def numbered(path, first, count, size=0):
    return [{"path": path, "payload": [number, "x" * size] if size else number}
            for number in range(first, first + count)]


def kill(broker):
    broker.process.send_signal(signal.SIGKILL)
    broker.process.wait()
    broker.reader.join()
    os.unlink(broker.ports_file)  # which tells when the next one is ready


class Writing(unittest.TestCase):
    def test_a_logged_channel_is_synced_unless_less_is_asked_for(self):
        with logged() as broker, Client(broker) as client:
            self.assertEqual(client.welcome["features"], ["lives", "log"])
            self.assertEqual(client.publish(*numbered("a", 1, 1), level=None)["level"], 3)
            self.assertEqual(client.publish(*numbered("a", 2, 1), level=3)["level"], 3)
            self.assertEqual(client.publish(*numbered("a", 3, 1), level=1)["level"], 1)
            client.request("channel", action="add", name="m", settings={"store": "memory"})
            client.request("channel", action="add", name="lazy", settings={"sync": False})
            self.assertEqual(client.publish(*numbered("m", 1, 1), level=None)["level"], 1)
            self.assertEqual(client.publish(*numbered("lazy", 1, 1), level=None)["level"], 1)
            mixed = client.publish(*numbered("a", 4, 1), *numbered("m", 2, 1), level=3)
            self.assertEqual(mixed["refused"], [[1, "unsupported"]])
            self.assertEqual(mixed["positions"], [["a", 4, 1]])

    def test_without_a_log_synced_is_refused(self):
        with Broker() as broker, Client(broker) as client:
            self.assertEqual(client.welcome["features"], ["lives"])
            with self.assertRaises(Failure) as caught:
                client.publish(*numbered("a", 1, 1), level=3)
            self.assertEqual(caught.exception.code, "unsupported")

    def test_what_was_acknowledged_survives_a_kill_and_is_not_taken_twice(self):
        me = random_id()
        broker = logged().start()
        with Client(broker, client=me, epoch=1) as client:
            for number in range(1, 301):
                client.send("publish", numbered("a/b", number, 1), number=number)
            while client.wait_ack(300) is None:
                pass
        kill(broker)
        with broker, Client(broker, client=me, epoch=1) as client:
            self.assertEqual(client.welcome["last"], 300)
            self.assertEqual(client.publish(*numbered("a/b", 300, 1), number=300)["positions"], None)
            self.assertEqual(client.publish(*numbered("a/b", 301, 1), number=301, level=3)["positions"], [["a", 301, 1]])
            self.assertEqual(client.read(["a/*"]).payloads, list(range(1, 302)))

    def test_a_condition_on_a_channel_or_a_path_holds_or_nothing_is_taken(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            client.publish(*numbered("a/x", 1, 1), level=3)
            client.publish(*numbered("a/y", 1, 2000, 100), level=3)  # a/x leaves the ring
            self.assertEqual(client.publish(*numbered("a/x", 2, 1), options={"expect": {"a": 2001}})["level"], 1)
            with self.assertRaises(Failure) as caught:
                client.publish(*numbered("a/x", 3, 1), options={"expect": {"a": 2001}})
            self.assertEqual(caught.exception.code, "conflict")
            self.assertEqual(caught.exception.message["detail"], {"channel": "a", "last": 2002})
            self.assertEqual(client.publish(*numbered("a/x", 3, 1), options={"expect_path": {"a/x": 2002}}, level=3)["level"], 3)
            client.publish(*numbered("a/y", 1, 2000, 100), level=3)
            with self.assertRaises(Failure) as caught:  # which only the log knows now
                client.publish(*numbered("a/x", 4, 1), options={"expect_path": {"a/x": 1}})
            self.assertEqual(caught.exception.message["detail"], {"path": "a/x", "last": 2003})
            client.publish(*numbered("a/x", 4, 1), options={"expect_path": {"a/x": 2003, "a/z": 0}})


class BackPressure(unittest.TestCase):
    """One megabyte may wait for the disk, and twenty-seven come at once, less than the door on libzmq keeps of a paused client.
    Whether the disk is slow enough for a pause is its own affair; that there is one, and what it does to heartbeats, is shown in
    test_stage.c. Here nobody answers pings while he waits for something else, which on a busy machine takes seconds."""
    N = 30
    SIZE = 900000

    def publish_all(self, publisher):
        for number in range(1, self.N + 1):
            publisher.send("publish", [{"path": "a", "payload": "x" * self.SIZE}], number=number)

    def test_who_publishes_faster_than_the_disk_is_paused_and_nobody_else_is(self):
        with logged("--backend-option", "queue-size=1M") as broker, Client(broker, heartbeat=2000) as publisher, \
                Client(broker, heartbeat=2000) as other:
            other.request("channel", action="add", name="m", settings={"store": "memory"})
            ledger = other.subscribe(["a", "m"], bytes=1 << 30, events=1 << 30)
            self.publish_all(publisher)
            for number in range(1, 101):
                other.publish(*numbered("m", number, 1))
            for number in range(1, self.N + 1):
                self.assertEqual(publisher.wait_ack(number)["positions"], [["a", number, 1]])
            other.collect_events(self.N + 100)
            self.assertEqual([e["seq"] for e in ledger.events if e["path"] == "a"], list(range(1, self.N + 1)))
            counters = other.status("counters")["counters"]
            self.assertEqual((counters["clients_expired"], counters["events_refused"], counters["batches_refused"],
                              counters["clients_went"]), (0, 0, 0, 0))

    def test_what_waits_when_its_publisher_goes_is_taken_as_a_whole_or_not_at_all(self):
        with logged("--backend-option", "queue-size=1M") as broker, Client(broker) as other:
            publisher = Client(broker, client=random_id(), epoch=1)
            self.publish_all(publisher)
            publisher.wait_ack(1)
            publisher.close()
            until(lambda: other.counter("clients_went") == 1, "the publisher's end")
            read = other.read(["a"], bytes=1 << 30)
            self.assertEqual(read.sequences, list(range(1, len(read.sequences) + 1)))
            self.assertEqual({len(payload) for payload in read.payloads}, {self.SIZE})


class Reading(unittest.TestCase):
    def test_a_subscription_slides_from_the_log_into_the_present(self):
        with logged("--ring", "64K") as broker, Client(broker) as client, Client(broker) as publisher:
            for first in range(0, 20000, 500):
                publisher.publish(*numbered("a/b", first, 500, 64), level=3)
            ledger = client.subscribe(["a/*"], start=1, bytes=1 << 30, events=1 << 30)
            for first in range(20000, 30000, 500):
                publisher.publish(*numbered("a/b", first, 500, 64), level=3)
            client.collect_events(30000)
            self.assertEqual(ledger.sequences, list(range(1, 30001)))
            self.assertEqual(ledger.gaps, [])
            self.assertEqual(client.status("counters")["counters"]["gap_overflow"], 0)

    def test_who_stops_reading_goes_on_from_the_log(self):
        with logged("--ring", "64K") as broker, Client(broker) as client, Client(broker) as publisher:
            ledger = client.subscribe(["a/*"], bytes=1000, events=10)
            for first in range(0, 5000, 500):
                publisher.publish(*numbered("a/b", first, 500, 64), level=3)
            client.send("credit", sub=1, bytes=1 << 30, events=1 << 30)
            client.collect_events(5000)
            self.assertEqual(ledger.sequences, list(range(1, 5001)))
            self.assertEqual(ledger.gaps, [])

    def test_places_in_the_log_by_sequence_time_id_and_last(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            for first in range(0, 3000, 100):
                client.publish(*numbered("a/b", first, 100, 64), level=3)
            client.publish({"path": "a/rare", "payload": 1}, level=3)
            client.publish(*numbered("a/b", 0, 2000, 64), level=3)
            events = client.read(["a/*"]).events
            self.assertEqual(len(events), 5001)
            for wanted in (events[0], events[1234], events[3000], events[4999]):
                first = next(e for e in events if e["time"] >= wanted["time"])
                self.assertEqual(client.read(["a/*"], start={"time": wanted["time"]}).sequences[0], first["seq"])
                self.assertEqual(client.read(["a/*"], start={"id": wanted["id"]}).sequences[0], wanted["seq"] + 1)
                self.assertEqual(client.read(["a/*"], start=wanted["seq"]).sequences[0], wanted["seq"])
            self.assertEqual(client.read(["a/rare"], start="last").sequences, [3001])

    def test_the_last_event_is_found_whatever_ends_the_subscription(self):
        with logged() as broker, Client(broker) as client:
            client.publish(*numbered("a/x", 1, 3), *numbered("a/y", 1, 1), level=3)
            self.assertEqual(client.read(["a/x"], start="last").sequences, [3])
            self.assertEqual(client.subscribe(["a/x"], start="last", until=2).covered, {"a": 2})

    def test_what_comes_after_the_end_is_neither_told_nor_read(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            for first in range(1, 5000, 100):
                client.publish(*numbered("a", first, 100, 64), level=3)
            client.publish(*numbered("b", 1, 3), level=3)
            ledger = client.subscribe(["*"], start=1, until=10)
            client.collect_events(13)
            self.assertEqual(ledger.covered["a"], 10)
            reads = client.counter("log_reads")
            for _ in range(50):
                client.counter("log_reads")
            self.assertLessEqual(client.counter("log_reads") - reads, 2)  # it waits for b
            client.publish(*numbered("b", 4, 20), level=3)
            client.wait(lambda message: message["op"] == "ended", "the end")
            self.assertEqual((len(ledger.events), ledger.covered), (20, {"a": 10, "b": 10}))

    def test_a_time_ends_a_subscription_in_the_log(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            for first in range(1, 5000, 100):
                client.publish(*numbered("a", first, 100, 64), level=3)
            at = client.query(types=["a"], order="ascending", max=250)[0][-1]["time"]
            ledger = client.subscribe(["a"], start=1, until={"time": at})
            client.wait(lambda message: message["op"] == "ended", "the end")
            self.assertEqual(ledger.sequences, list(range(1, len(client.query(types=["a"], t_to=at)[0]) + 1)))

    def test_positions_hold_across_a_restart(self):
        broker = logged().start()
        with Client(broker) as client:
            run = client.welcome["run"]
            client.publish(*numbered("a", 1, 10), level=3)
        kill(broker)
        with broker, Client(broker) as client:
            ledger = client.subscribe(["a"], start={"run": run, "after": {"a": 4}})
            client.collect_events(6)
            self.assertEqual((ledger.sequences, ledger.gaps), ([5, 6, 7, 8, 9, 10], []))

    def test_a_position_that_the_log_did_not_keep_does_not_hold(self):
        broker = logged().start()
        with Client(broker) as client:
            run = client.welcome["run"]
            client.publish(*numbered("a", 1, 4), level=3)
        kill(broker)
        with broker, Client(broker) as client:
            client.publish(*numbered("a", 5, 6), level=3)
            client.publish(*numbered("b", 1, 6), level=3)
            ledger = client.subscribe(["*"], start={"run": run, "after": {"a": 7, "b": 3}})  # seen in the early view
            client.collect_events(12)
            self.assertEqual(ledger.sequences, list(range(5, 11)) + list(range(1, 7)))
            self.assertEqual(ledger.gaps, [("a", 5, 7, None, "retracted"), ("b", 4, None, None, "restart")])

    def test_retained_values_of_a_hundred_thousand_paths(self):
        for arguments in ((), ("--data", "{dir}/data")):
            with Broker(*arguments) as broker, Client(broker) as client, Client(broker) as publisher:
                for first in range(0, 100000, 5000):
                    publisher.publish(*[{"path": f"a/{n}", "payload": n} for n in range(first, first + 5000)], level=None)
                ledger = client.subscribe(["a/*"], retained=True, bytes=1 << 30, events=1 << 30)
                publisher.publish(*numbered("a/5", 7, 1), level=None)
                client.collect_events(1)
                found = {e["payload"] for e in client.retained}
                self.assertEqual(len(found), len(client.retained))
                self.assertEqual(found | {5}, set(range(100000)))  # a/5 may have been published again before it was looked up
                self.assertEqual(ledger.sequences, [100001])

    def test_retained_values_come_first_and_then_the_flow(self):
        with logged() as broker, Client(broker) as client:
            client.publish(*numbered("a/x", 1, 3), *numbered("a/y", 7, 2), *numbered("b/x", 1, 1), level=3)
            ledger = client.subscribe(["a/*"], retained=True)
            client.collect(lambda: client.has_all_retained, "the retained values")
            self.assertEqual({e["path"]: e["payload"] for e in client.retained}, {"a/x": 3, "a/y": 8})
            client.publish(*numbered("a/x", 4, 1), level=3)
            client.collect_events(1)
            self.assertEqual((ledger.payloads, len(client.retained)), ([4], 2))

    def test_a_path_that_has_a_newer_event_before_it_is_looked_up_comes_with_that(self):
        with logged() as broker, Client(broker) as client:
            client.publish(*numbered("a/x", 1, 3), *numbered("a/y", 7, 2), level=3)
            ledger = client.subscribe(["a/*"], retained=True)
            client.publish(*numbered("a/x", 4, 1), level=3)  # which of the two comes first is the broker's affair
            client.collect_events(1)
            self.assertTrue(client.has_all_retained)
            self.assertIn({e["path"]: e["payload"] for e in client.retained}, ({"a/x": 3, "a/y": 8}, {"a/y": 8}))
            self.assertEqual(ledger.payloads, [4])

    def test_cursors_are_remembered(self):
        broker = logged().start()
        with Client(broker) as client:
            client.publish(*numbered("a", 1, 10), level=3)
            client.request("cursor", name="mine", positions=[["a", 6]])
        kill(broker)
        with broker, Client(broker) as client:
            self.assertEqual(client.read(["a"], start="new", durable="mine").sequences, [7, 8, 9, 10])
            client.request("cursor", name="mine")
            self.assertEqual(client.read(["a"], start="new", durable="mine").sequences, [])

    def test_a_new_name_has_its_cursor_at_once_and_a_void_one_is_told_until_it_is_saved(self):
        broker = logged().start()
        with Client(broker) as client:
            client.publish(*numbered("a/x", 1, 3), level=3)
            client.subscribe(["a/*"], durable="mine")
            client.publish(*numbered("a/x", 4, 1), level=3)
        kill(broker)
        with broker, Client(broker) as client:
            self.assertEqual(client.read(["a/*"], start="new", durable="mine").sequences, [4])
            client.request("channel", action="rm", name="a")
            client.publish(*numbered("a/x", 1, 2), level=3)
            for _ in range(2):
                ledger = client.read(["a/*"], start="new", durable="mine")
                self.assertEqual(ledger.sequences, [1, 2])
                self.assertEqual([gap[4] for gap in ledger.gaps], ["restart"])

    def test_an_expired_event_is_a_gap_and_is_not_found(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            client.publish({"path": "a/x", "payload": 1, "ttl": 1}, *numbered("a/x", 2, 1), level=3)
            client.publish(*numbered("a/y", 1, 2000, 100), level=3)
            found = client.query(types=["a/x"])[0][0]
            end = time.monotonic() + 5
            while client.query(types=["a/x"], order="ascending")[0][0]["payload"] == 1 and time.monotonic() < end:
                pass
            ledger = client.read(["a/x"])
            self.assertEqual(found["payload"], 2)
            self.assertEqual(ledger.payloads, [2])
            self.assertEqual([gap[3:] for gap in ledger.gaps], [(1, "expired")])

    def test_trimming_is_told(self):
        with logged("--ring", "64K") as broker, Client(broker) as client:
            client.publish(*numbered("a", 1, 5000, 64), level=3)
            client.request("channel", action="trim", name="a", settings={"before": 3000})
            ledger = client.read(["a"])
            self.assertEqual(ledger.sequences[0], 3000)
            self.assertEqual(ledger.gaps[0][:3], ("a", 1, 2999))


class Queries(unittest.TestCase):
    def test_pages_of_a_query_together_are_all_of_it(self):
        for arguments in ((), ("--data", "{dir}/data")):
            with Broker(*arguments) as broker, Client(broker) as client:
                for first in range(0, 100, 10):
                    client.publish(*[{"path": f"a/{n % 3}", "payload": {"n": n}, "source_time": 1000 - n}
                                     for n in range(first, first + 10)], level=None)
                for order in ("ascending", "descending"):
                    for by in ("time", "source_time"):
                        found, behind, more = [], {}, True
                        while more:
                            page, more = client.query(types=["a/*"], order=order, order_by=by, max=7, **behind)
                            found += [e["payload"]["n"] for e in page]
                            behind = {"after": page[-1]["id"]}
                            if by == "source_time":
                                behind["after_source_t"] = 1000 - found[-1]
                        forwards = (order == "ascending") == (by == "time")
                        self.assertEqual(found, list(range(100)) if forwards else list(range(99, -1, -1)))
                self.assertEqual([e["payload"]["n"] for e in client.query(kind="latest", types=["a/*"])[0]], [99, 97, 98])
                found, behind, more = [], {}, True
                while more:
                    page, more = client.query(kind="latest", types=["a/*"], max=2, **behind)
                    found += [e["payload"]["n"] for e in page]
                    behind = {"after_path": page[-1]["path"]}
                self.assertEqual(found, [99, 97, 98])
                self.assertEqual([e["payload"]["n"] for e in client.query(where=".n >= 98 || .n == 3")[0]], [99, 98, 3])
                self.assertEqual(len(client.query(types=["a/*"], unique=True)[0]), 3)
                client.send_raw(bytes([0x92, 2, 0]) + b"\x92\xa1w\x91\xcd\x00\x05")  # [5], not in the shortest form
                client.publish({"path": "w/behind", "payload": 1}, level=None)
                self.assertEqual([e["payload"] for e in client.query(types=["w"], payload=[5])[0]], [[5]])
                with self.assertRaises(Failure) as caught:
                    client.query(where=".n >")
                self.assertIn("column", caught.exception.message["text"])

    def test_upkeep_while_it_runs(self):
        with logged() as broker, Client(broker) as client:
            client.publish(*numbered("a", 1, 1000), level=3)
            report = client.request("log", action="verify")["value"]
            self.assertEqual((report["events"], report["problems"]), (1000, 0))
            client.request("log", action="backup", options={"name": "copy"})
            client.request("log", action="compact")
            client.publish(*numbered("a", 1001, 1), level=3)
            self.assertEqual(len(client.read(["a"]).events), 1001)
            with Broker("--data", f"{broker.dir}/data/backups/copy") as other, Client(other) as reader:
                self.assertEqual(len(reader.read(["a"]).events), 1000)

    def test_settings_survive_and_bad_ones_are_refused(self):
        broker = logged().start()
        with Client(broker) as client:
            client.request("channel", action="add", name="a", settings={"max_events": 5, "overflow": "drop_oldest"})
            with self.assertRaises(Failure):
                client.request("channel", action="set", name="a", settings={"max_ages": 5})
            with self.assertRaises(Failure):
                client.request("channel", action="info", name="b")
        kill(broker)
        with broker, Client(broker) as client:
            info = client.request("channel", action="info", name="a")["value"]
            self.assertEqual((info["max_events"], info["overflow"], info["store"]), (5, "drop_oldest", "log"))
