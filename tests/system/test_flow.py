# SPDX-License-Identifier: Apache-2.0
"""Flow: credit, overflow policies, and subscribers that stop, beside others that do not notice.

What was delivered and what was reported lost is what was published, always."""
import random
import signal
import time
import unittest

from broker import Broker, Memory, Settings, until
from peers import Client, Failure
from test_clients import Process

FOREVER = 1 << 40


def event(path, payload=None):
    return {"path": path, "payload": payload}


def block(first, count, size, path="a"):
    return [event(path, [number, "x" * size]) for number in range(first, first + count)]


def flood(publisher, total, batch, size, path="a", look=None):
    """Publish `total` events, acknowledged with a window of 8 batches; returns the seconds it took."""
    began = time.monotonic()
    first = publisher.number
    for done in range(0, total, batch):
        publisher.number += 1
        publisher.send("publish", block(done + 1, batch, size, path), number=publisher.number, level=1)
        if publisher.number > first + 8:
            publisher.wait_ack(publisher.number - 8)
        if look is not None:
            look()
    publisher.wait_ack(publisher.number)
    return time.monotonic() - began


class Credit(unittest.TestCase):
    def test_events_are_sent_while_the_total_is_below_the_credit(self):
        with Broker() as broker, Client(broker) as publisher, Client(broker) as client:
            ledger = client.subscribe(["a"], events=10, bytes=FOREVER)
            for number in range(100):
                publisher.publish(event("a", number))
            client.collect_events(10)
            self.assertTrue(client.is_silent())
            client.send("credit", sub=1, bytes=0, events=15)
            client.send("credit", sub=1, bytes=0, events=12)  # it only grows
            client.collect(lambda: len(ledger.events) >= 15, "more")
            self.assertLess(len(ledger.events), 100 + 1)
            client.send("credit", sub=1, bytes=0, events=FOREVER)
            self.assertEqual(client.collect_events(100).payloads, list(range(100)))

    def test_bytes_exceed_the_credit_by_one_message_at_most(self):
        with Broker() as broker, Client(broker) as publisher, Client(broker) as client:
            ledger = client.subscribe(["a"], bytes=5000, events=FOREVER)
            for number in range(30):
                publisher.publish(event("a", "x" * 1000))
            client.collect(lambda: len(ledger.events) >= 5, "five events")
            self.assertTrue(client.is_silent())
            self.assertLessEqual(len(ledger.events), 6)
            client.send("credit", sub=1, bytes=FOREVER, events=0)
            client.collect_events(30)

    def test_without_credit_nothing_comes_and_nothing_is_lost(self):
        with Broker() as broker, Client(broker) as publisher, Client(broker) as client, Client(broker) as other:
            client.subscribe(["a"], bytes=0, events=0)
            other.subscribe(["a"])
            for number in range(50):
                publisher.publish(event("a", number))
            other.collect_events(50)
            self.assertTrue(client.is_silent())
            client.send("credit", sub=1, bytes=FOREVER, events=FOREVER)
            self.assertEqual(client.collect_events(50).payloads, list(range(50)))
            publisher.publish(event("a", 50))  # and it has joined the live flow
            self.assertEqual(client.collect_events(51).payloads[-1], 50)
            self.assertEqual(client.status("broker")["broker"]["lagging"], 0)


class Overflow(unittest.TestCase):
    """100 events of 1 KB for a subscription that has no credit and a budget of 10 KB."""

    def fall_behind(self, overflow, paths=1, ring="1M"):
        with Broker("--ring", ring) as broker, Client(broker) as publisher, Client(broker) as client:
            client.subscribe(["a/*"], bytes=0, events=0, overflow=overflow, budget=10000)
            for number in range(100):
                publisher.publish(event(f"a/{number % paths}", [number, "x" * 1000]))
            self.assertTrue(client.is_silent(0.05))
            client.send("credit", sub=1, bytes=FOREVER, events=FOREVER)
            ledger = client.collect_events(100)
            self.assertEqual(ledger.covered, {"a": 100})
            publisher.publish(event("a/0", [100, ""]))
            client.collect_events(101)
            self.assertEqual(ledger.payloads[-1][0], 100)
            return [payload[0] for payload in ledger.payloads[:-1]], {gap[4] for gap in ledger.gaps}

    def test_slide_loses_nothing_that_the_ring_still_has(self):
        self.assertEqual(self.fall_behind("slide"), (list(range(100)), set()))

    def test_slide_loses_what_the_ring_has_no_more(self):
        numbers, reasons = self.fall_behind("slide", ring="64K")
        self.assertEqual(numbers, list(range(100 - len(numbers), 100)))
        self.assertGreater(len(numbers), 10)
        self.assertEqual(reasons, {"overflow"})

    def test_drop_oldest_keeps_the_newest(self):
        numbers, reasons = self.fall_behind("drop_oldest")
        self.assertEqual(numbers, list(range(100 - len(numbers), 100)))
        self.assertTrue(8 <= len(numbers) <= 11, numbers)
        self.assertEqual(reasons, {"dropped_oldest"})

    def test_drop_newest_keeps_the_oldest(self):
        numbers, reasons = self.fall_behind("drop_newest")
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertTrue(8 <= len(numbers) <= 11, numbers)
        self.assertEqual(reasons, {"dropped_newest"})

    def test_conflate_keeps_the_newest_of_each_path(self):
        numbers, reasons = self.fall_behind("conflate", paths=5)
        self.assertEqual(numbers, [95, 96, 97, 98, 99])
        self.assertEqual(reasons, {"conflated"})

    def test_refuse_refuses_publishers_and_names_who_is_behind(self):
        with Broker() as broker, Client(broker) as publisher, Client(broker) as client:
            client.subscribe(["a/*"], bytes=0, events=0, overflow="refuse", budget=10000)
            taken, refused = 0, 0
            for number in range(30):
                try:
                    ack = publisher.publish(event("a/x", "x" * 1000))
                    taken += not ack.get("refused")
                    refused += bool(ack.get("refused"))
                except Failure as failure:
                    refused += 1
                    self.assertEqual(failure.code, "overflow")
                    self.assertEqual(failure.message["detail"]["client"], client.welcome["client_number"])
            self.assertTrue(8 <= taken <= 11, taken)
            self.assertEqual(refused, 30 - taken)
            self.assertEqual(publisher.publish(event("b", 1))["positions"], [["b", 1, 1]])
            client.send("credit", sub=1, bytes=FOREVER, events=FOREVER)
            client.collect_events(taken)
            publisher.publish(event("a/x", "again"))
            client.collect_events(taken + 1)

    def test_disconnect_sends_the_client_away(self):
        with Broker() as broker, Client(broker) as publisher, Client(broker, name="slow") as client:
            client.subscribe(["a"], bytes=0, events=0, overflow="disconnect", budget=10000)
            for _ in range(20):
                publisher.publish(event("a", "x" * 1000))
            self.assertEqual(client.expect("goodbye")["code"], "overflow")
            self.assertEqual(publisher.counter("clients_overflowed"), 1)
            self.assertEqual(publisher.status("broker")["broker"]["clients"], 1)

    def test_every_policy_adds_up_under_random_credit(self):
        policies = ("slide", "drop_oldest", "drop_newest", "conflate")
        total = 4000 * Settings.size
        chance = random.Random(7)
        with Broker("--ring", "256K") as broker, Client(broker) as publisher, Client(broker) as client:
            credit = {}
            for sub, policy in enumerate(policies):
                credit[sub] = 20
                client.subscribe(["a/*", "b"], sub=sub, bytes=FOREVER, events=20, overflow=policy, budget=20000)
            for number in range(total):
                path = "b" if number % 7 == 0 else f"a/{number % 13}"
                publisher.send("publish", [event(path, [number, "x" * chance.randrange(400)])], number=0)
                if chance.random() < 0.05:
                    sub = chance.randrange(len(policies))
                    credit[sub] += chance.randrange(40)
                    client.send("credit", sub=sub, bytes=0, events=credit[sub])
                if chance.random() < 0.2:
                    client.receive(0)
            publisher.request("status", what=["broker"])  # all is published
            for sub in credit:
                client.send("credit", sub=sub, bytes=0, events=FOREVER)
            for sub, policy in enumerate(policies):
                ledger = client.collect_events(total, sub=sub)
                print(f"{policy}: {len(ledger.events)} delivered, {ledger.lost} reported lost")
                for channel in ("a", "b"):
                    got = [e["payload"][0] for e in ledger.events if e["path"].split("/")[0] == channel]
                    self.assertEqual(got, sorted(set(got)))
            self.assertTrue(all(ledger.lost for ledger in client.ledgers.values()))


class Stopped(unittest.TestCase):
    def test_one_stopped_subscriber_disturbs_nobody_and_its_sum_is_exact(self):
        """HAT-W2."""
        total = 20000 * Settings.size
        with Broker("--ring", "2M", "--memory", "4M", "--inflight", "1M") as broker, Client(broker) as publisher, \
                Client(broker) as healthy, Process(broker, pattern="a") as stopped:
            ledger = healthy.subscribe(["a"], bytes=FOREVER, events=FOREVER)
            memory = Memory(broker)

            def look():
                memory.look()
                while healthy.receive(0) is not None:
                    pass
            before = flood(publisher, total // 2, 50, 1000, look=look)
            stopped.signal(signal.SIGSTOP)
            during = flood(publisher, total, 50, 1000, look=look)
            healthy.collect_events(total // 2 + total)
            self.assertEqual(ledger.gaps, [])
            stopped.signal(signal.SIGCONT)

            def sum_of_stopped():
                received, lost = map(int, stopped.ask("count").split())
                return (received, lost) if received + lost >= total + total // 2 else None
            received, lost = until(sum_of_stopped, "the stopped subscriber to have heard of everything")
            print(f"before {total / 2 / before:.0f}/s, beside the stopped one {total / during:.0f}/s; "
                  f"it received {received} and lost {lost}")
            self.assertEqual(received + lost, total + total // 2)
            self.assertGreater(lost, 0)
            memory.assert_below(self, 4 + 2 * 1 + 24)  # rings, on their way, libzmq and the allocator

    def test_a_hundred_stalled_subscribers_stay_within_the_budget(self):
        n, total = 100, 6000 * Settings.size
        with Broker("--ring", "4M", "--memory", "8M", "--inflight-all", "16M") as broker, Client(broker) as publisher, \
                Client(broker) as healthy:
            stalled = [Client(broker, answers_ping=False, RCVHWM=1, RCVBUF=4096) for _ in range(n)]
            for client in stalled:
                client.subscribe(["a"], bytes=FOREVER, events=FOREVER)
            ledger = healthy.subscribe(["a"], bytes=FOREVER, events=FOREVER)
            memory = Memory(broker)

            def look():
                memory.look()
                while healthy.receive(0) is not None:
                    pass
            seconds = flood(publisher, total, 20, 4000, look=look)
            healthy.collect_events(total)
            self.assertEqual(ledger.gaps, [])
            print(f"{total / seconds:.0f} events/s beside {n} stalled subscribers")
            memory.assert_below(self, 8 + 32 + 40)
            one = stalled[0]
            one.answers_ping = True
            one.send("pong", token=one.pinged)
            one.collect_events(total)
            self.assertGreater(one.ledgers[1].lost, 0)
            for client in stalled:
                client.close()
