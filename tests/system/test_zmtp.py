# SPDX-License-Identifier: Apache-2.0
"""The broker's own engine under the main door, from the other end of a bare connection."""
import signal
import socket as sockets
import struct
import threading
import time
import unittest

from broker import Broker, Memory, Settings, cpu_of
from peers import Client, pack, unpack
from test_hostile import GREETING, Healthy, drained, event, raw, zmtp

HELLO = pack([1, 1, 1, None, 0])


def frame(data, more=False):
    if len(data) < 256:
        return bytes([more, len(data)]) + data
    return bytes([more | 2]) + struct.pack(">Q", len(data)) + data


def command(name, data):
    return bytes([4, 1 + len(name) + len(data), len(name)]) + name + data


def ping(context=b""):
    return command(b"PING", b"\x00\x01" + context)


def frames(connection, timeout=20):
    """What comes until the connection ends: (flags, bytes)."""
    connection.settimeout(timeout)
    got = b""
    while True:
        head = 9 if got[:1] and got[0] & 2 else 2
        size = None
        if len(got) >= head:
            size = struct.unpack(">Q", got[1:9])[0] if head == 9 else got[1]
        if size is None or len(got) < head + size:
            more = connection.recv(1 << 16)
            if not more:
                assert not got, "cut off in the middle of a frame"
                return
            got += more
        else:
            yield got[0], got[head:head + size]
            got = got[head + size:]


def codes(connection):
    """The first fields of the messages of one frame that come until the end."""
    for flags, data in frames(connection):
        if flags & 5 == 0:
            yield unpack(data)[0][:3]


class Handshake(unittest.TestCase):
    def test_peers_that_are_no_clients_are_refused(self):
        with Broker() as broker, Healthy(broker) as healthy:
            for kind in (b"SUB", b"REP", b"PUSH", b"PAIR", b"dealer", b""):
                connection = raw(broker)
                body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
                connection.sendall(GREETING + bytes([4, len(body)]) + body)
                self.assertTrue(drained(connection), kind)
                connection.close()
            for greeting in (GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32), b"\xff" + bytes(8) + b"\x7f\x01\x05",
                             GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32), b"\x01\x00\x06hello"):
                connection = raw(broker)
                connection.sendall(greeting)
                self.assertTrue(drained(connection), greeting)
                connection.close()
            healthy.works()

    def test_a_greeting_that_drips_is_cut_off_as_soon_as_one_that_does_not_come(self):
        with Broker() as broker, Healthy(broker) as healthy:
            connection = raw(broker)
            began = time.monotonic()
            with self.assertRaises(OSError):
                for byte in GREETING * 2:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.25)
            print(f"cut off after {time.monotonic() - began:.1f} s")
            connection.close()
            healthy.works()


class Talk(unittest.TestCase):
    def test_commands_may_stand_between_the_frames_of_a_message(self):
        with Broker() as broker:
            connection = zmtp(broker)
            whole = pack([8, 7, ["broker"]])
            connection.sendall(frame(HELLO) + frame(b"", True) + ping(b"here") + frame(whole[:3], True) +
                               command(b"UNKNOWN", b"x") + frame(whole[3:]) + frame(pack([10, "closed"])))
            answers = list(frames(connection))
            self.assertIn((4, b"\x04PONGhere"), answers)
            self.assertEqual([unpack(data)[0][:2] for flags, data in answers if flags & 4 == 0], [[16, 1], [21, 7]])
            connection.close()

    def test_pings_of_a_peer_that_reads_nothing_cost_nothing(self):
        with Broker() as broker, Healthy(broker) as healthy:
            memory = Memory(broker)
            connection = zmtp(broker)
            for _ in range(100):
                connection.sendall(ping(b"0123456789abcdef") * 10000)
            healthy.works()
            memory.assert_below(self, 16)
            connection.close()

    def test_giants_that_are_announced_and_do_not_come_hold_little(self):
        with Broker() as broker, Healthy(broker) as healthy:
            connections = [zmtp(broker) for _ in range(300)]
            for connection in connections:
                connection.sendall(frame(HELLO) + b"\x02" + struct.pack(">Q", 1 << 20) + b"y" * 9000)
            for _ in range(3):
                healthy.works()
            self.assertLess(healthy.status("broker")["broker"]["event_bytes"], 300 * 80000)
            for connection in connections:
                connection.close()
            healthy.works()


class Flood(unittest.TestCase):
    def test_who_sends_without_pause_does_not_keep_others_waiting(self):
        with Broker() as broker, Healthy(broker) as healthy:
            blob = frame(pack([2, 0, 0], *[["flood", "x" * 90]] * 500)) * 20
            connections = [zmtp(broker) for _ in range(4)]
            ended = threading.Event()

            def flood(connection):
                connection.sendall(frame(HELLO))
                while not ended.is_set():
                    connection.sendall(blob)
            threads = [threading.Thread(target=flood, args=(connection,)) for connection in connections]
            for thread in threads:
                thread.start()
            try:
                worst = 0
                for _ in range(100):
                    began = time.monotonic()
                    healthy.works()
                    worst = max(worst, time.monotonic() - began)
            finally:
                ended.set()
                for thread in threads:
                    thread.join()
            print(f"worst {worst * 1000:.0f} ms")
            self.assertLess(worst, 5)
            for connection in connections:
                connection.close()


class End(unittest.TestCase):
    def test_what_came_before_the_end_is_taken_although_nobody_reads_the_answers(self):
        with Broker() as broker, Client(broker) as client:
            client.subscribe(["a"], bytes=1 << 30)
            connection = sockets.socket(sockets.AF_UNIX)
            connection.connect(broker.door("listen", "ipc")[len("ipc://"):])
            ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
            connection.sendall(GREETING + bytes([4, len(ready)]) + ready + frame(HELLO))
            for number in range(50):
                connection.sendall(frame(pack([2, number + 1, 1], ["a", bytes(50000)])))
            connection.close()
            self.assertEqual(client.collect_events(50).lost, 0)

    def test_who_is_sent_away_gets_the_reason_although_it_goes_on_sending(self):
        with Broker() as broker, Healthy(broker) as healthy:
            connection = zmtp(broker)
            connection.sendall(frame(HELLO) + frame(b"\xc1") * 16 + bytes(1 << 20))
            self.assertEqual(list(codes(connection))[-1][:2], [10, "malformed"])
            connection.close()
            healthy.works()

    def test_connections_that_are_being_closed_cost_no_time(self):
        with Broker() as broker, Healthy(broker) as healthy:
            connections = [zmtp(broker) for _ in range(20)]
            for connection in connections:
                connection.sendall(frame(HELLO) + frame(pack([10, "closed"])) + bytes(100000))
            healthy.works()
            spent, began = cpu_of(broker.pid), time.monotonic()
            for connection in connections:  # they close only after the broker has given up on them
                time.sleep(0.1)
            load = (cpu_of(broker.pid) - spent) / (time.monotonic() - began)
            print(f"{load:.0%} of a processor")
            if not Settings.sanitizer:
                self.assertLess(load, 0.3)
            for connection in connections:
                self.assertTrue(drained(connection))
                connection.close()

    def test_goodbye_reaches_who_reads_slowly(self):
        with Broker() as broker, Client(broker) as client:
            connection = zmtp(broker)
            connection.sendall(frame(HELLO) + frame(pack([3, 2, 1, ["a"], "new", {}])) + frame(pack([5, 1, 1 << 30, 1000])))
            answers = frames(connection)
            while unpack(next(answers)[1])[0][0] != 17:
                pass
            for number in range(30):
                client.publish(event("a", bytes(100000)))
            rest = []
            reader = threading.Thread(target=lambda: rest.extend(answers))
            broker.signal(signal.SIGTERM)
            connection.sendall(frame(pack([6, 1])) * 100)
            reader.start()
            reader.join()
            self.assertEqual(unpack(rest[-1][1])[0][:2], [10, "shutting_down"])
            self.assertGreater(sum(len(data) for _, data in rest), 30 * 100000)
            connection.close()
            self.assertEqual(broker.wait(), 0)
