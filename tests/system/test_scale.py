# SPDX-License-Identifier: Apache-2.0
"""Many clients and many subscriptions on one broker. Times are printed, not judged."""
import time
import unittest

import zmq

from broker import Broker, Settings, cpu_of
from peers import Client, pack, socket, unpack

CLIENTS = 2000


def event(path, payload=None):
    return {"path": path, "payload": payload}


class Clients(unittest.TestCase):
    def test_two_thousand_clients_connect_and_cost_nothing_while_idle(self):
        with Broker("--heartbeat", "10s") as broker, Client(broker) as watcher:
            began = time.monotonic()
            peers = [socket(zmq.DEALER, broker.door("listen", ("tcp", "ipc")[i % 2])) for i in range(CLIENTS)]
            for peer in peers:
                peer.send(pack([1, 1, 1, None, 0]))
            for peer in peers:
                self.assertEqual(unpack(peer.recv())[0][0], 16)
            connected = time.monotonic() - began
            self.assertEqual(watcher.status("broker")["broker"]["clients"], CLIENTS + 1)
            spent, began = cpu_of(broker.pid), time.monotonic()
            watcher.receive(2)
            load = (cpu_of(broker.pid) - spent) / (time.monotonic() - began)
            print(f"{CLIENTS} clients in {connected:.2f} s; idle {load:.2%} of a processor; {broker.rss:.0f} MiB")
            for peer in peers:
                peer.send(pack([3, 1, 1, ["a"]]))
            for peer in peers:
                self.assertEqual(unpack(peer.recv())[0][0], 17)
            self.assertEqual(watcher.publish(event("a", 1), level=2)["matches"], CLIENTS)
            for peer in peers:
                self.assertEqual(unpack(b"".join(peer.recv_multipart()))[2], ["a", 1])
                peer.close()


class Subscriptions(unittest.TestCase):
    def test_two_hundred_thousand_subscriptions_are_added_matched_and_removed(self):
        clients, each = 20, 10000 if not Settings.sanitizer else 1000
        with Broker() as broker:
            peers = [Client(broker) for _ in range(clients)]
            began = time.monotonic()
            for start in range(0, each, 250):  # requests in flight, of all clients
                for number, peer in enumerate(peers):
                    for sub in range(start, start + 250):
                        pattern = (f"c{number}/{sub}", f"all/?/{sub}", f"c{number}/{sub}/*")[sub % 3]
                        peer.send("subscribe", corr=sub + 1, sub=sub, patterns=[pattern])
                for peer in peers:
                    for sub in range(start, start + 250):
                        answer = peer.receive()
                        assert answer["op"] == "subscribed" and answer["corr"] == sub + 1, answer
            added = time.monotonic() - began
            status = peers[0].status("broker")["broker"]
            self.assertEqual(status["subscriptions"], clients * each)
            began = time.monotonic()
            self.assertEqual(peers[0].publish(event("all/x/4"), level=2)["matches"], clients)
            self.assertEqual(peers[0].publish(event("c7/3"), level=2)["matches"], 1)
            self.assertEqual(peers[0].publish(event("c7/5/deep/er"), level=2)["matches"], 1)
            self.assertEqual(peers[0].publish(event("c7/4"), level=2)["matches"], 0)
            matched = time.monotonic() - began
            for peer in peers:
                peer.collect_events(1, sub=4)
            peers[7].collect_events(1, sub=3)
            peers[7].collect_events(1, sub=5)
            began = time.monotonic()
            for start in range(0, each, 250):
                for peer in peers:
                    for sub in range(start, start + 250):
                        peer.send("unsubscribe", corr=sub + 1, sub=sub)
                for peer in peers:
                    for sub in range(start, start + 250):
                        assert peer.receive()["op"] == "result"
            removed = time.monotonic() - began
            print(f"{clients * each} subscriptions: added in {added:.1f} s, four publishes {matched * 1000:.1f} ms, removed "
                  f"in {removed:.1f} s; {status['pattern_bytes'] >> 20} MiB of patterns, {broker.rss:.0f} MiB in all")
            after = peers[0].status("broker")["broker"]
            self.assertEqual((after["subscriptions"], after["patterns"]), (0, 0))
            self.assertEqual(peers[0].publish(event("all/x/4"), level=2)["matches"], 0)
            for peer in peers:
                peer.close()
