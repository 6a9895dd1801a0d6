# SPDX-License-Identifier: Apache-2.0
"""Clients of the main door written from PROTOCOL.md alone: one in MessagePack, one in JSON, one face.

Messages are dicts with the names of PROTOCOL 5; events are the objects of PROTOCOL 10.1. What a subscription
gets goes through a Ledger, which insists that ranges and gaps join (7.4)."""
import base64
import json
import os
import time

import msgpack
import zmq

from broker import DEADLINE

FIELDS = {
    1: ("hello", "corr version client epoch options"),
    2: ("publish", "number level options"),
    3: ("subscribe", "corr sub patterns from options"),
    4: ("unsubscribe", "corr sub"),
    5: ("credit", "sub bytes events"),
    6: ("ping", "token"),
    7: ("pong", "token"),
    8: ("status", "corr what"),
    9: ("matches", "corr path min timeout"),
    10: ("goodbye", "code text"),
    11: ("cursor", "corr name positions"),
    12: ("query", "corr query"),
    13: ("channel", "corr action name settings"),
    14: ("log", "corr action options"),
    16: ("welcome", "corr version server run client_number last limits features"),
    17: ("subscribed", "corr sub session positions ends"),
    18: ("ack", "entries"),
    19: ("deliver", "sub ranges gaps retained"),
    20: ("gap", "sub gaps"),
    21: ("result", "corr value"),
    22: ("error", "about corr code text detail"),
    23: ("events", "corr more"),
    24: ("ended", "sub code text"),
}
NAMES = {number: (name, fields.split()) for number, (name, fields) in FIELDS.items()}
NUMBERS = {name: number for number, (name, _) in NAMES.items()}
ATTRIBUTES = {"client_id": "id", "priority": "priority", "source_time": "source_time", "headers": "headers",
              "payload_type": "payload_type", "ttl": "ttl"}
CONTEXT = zmq.Context()
CONTEXT.set(zmq.MAX_SOCKETS, 16384)
CONTEXT.set(zmq.IO_THREADS, 1)


class Failure(Exception):
    """An error message of the broker."""

    def __init__(self, message):
        super().__init__(message)
        self.code = message["code"]
        self.message = message


def socket(kind, endpoint, **options):
    made = CONTEXT.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.RCVTIMEO, int(DEADLINE * 1000))
    made.setsockopt(zmq.SNDTIMEO, int(DEADLINE * 1000))
    for name, value in options.items():
        made.setsockopt(getattr(zmq, name), value)
    made.connect(endpoint)
    return made


def pack(*values):
    return b"".join(msgpack.packb(value, use_bin_type=True) for value in values)


def unpack(data):
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 28)
    unpacker.feed(data)
    return list(unpacker)


def event_array(event):
    attributes = {short: event[name] for name, short in ATTRIBUTES.items() if name in event}
    return [event["path"], event.get("payload"), *([attributes] if attributes else [])]


def event_object(array):
    path, payload, *rest = array
    attributes = rest[0] if rest else {}
    names = {short: name for name, short in ATTRIBUTES.items()}
    return {"path": path, "payload": payload, **{names[key]: value for key, value in attributes.items()}}


def published(event):
    """An event as its publisher gave it, without what the broker added and attributes that are as if not given."""
    nothing = {"priority": 0, "source_time": None, "headers": {}}
    return {key: value for key, value in event.items()
            if key in ("path", "payload", *ATTRIBUTES) and not (key in nothing and value == nothing[key])}


class Ledger:
    """What one subscription was told."""

    def __init__(self, positions):
        self.covered = {channel: sequence for channel, sequence, *_ in positions}
        self.lives = {channel: life[0] for channel, _, *life in positions if life}  # PROTOCOL 7.5
        self.last = {}  # sequence of the newest event
        self.events = []
        self.gaps = []
        self.bytes = 0

    def deliver(self, ranges, events, gaps):
        self.gap(gaps)  # PROTOCOL 7.4: first the gaps, then the rest
        for channel, start, end, *life in ranges:
            self.lives.update({channel: life[0]} if life else {})
            assert self.covered.get(channel, 0) == start, f"range {start}..{end} after {self.covered.get(channel, 0)}"
            assert start < end or (gaps and start == end), f"empty range {start}..{end}"
            self.covered[channel] = end
        for event in events:  # conflation keeps events that lie among those of a gap: only their order is sure
            channel = event["path"].split("/")[0]
            assert self.last.get(channel, 0) < event["seq"] <= self.covered[channel], \
                f"{channel} {event['seq']} after {self.last.get(channel)}; ranges {ranges}"
            self.last[channel] = event["seq"]
        self.events += events

    def gap(self, gaps):
        for channel, start, end, count, reason, *life in gaps:
            self.lives.update({channel: life[0]} if life else {})
            if reason in ("restart", "retracted"):  # the position goes back
                self.covered[channel] = start - 1 if reason == "retracted" else 0
                self.last[channel] = min(self.last.get(channel, 0), self.covered[channel])
            else:
                assert self.covered.get(channel, 0) + 1 == start, f"gap {start} after {self.covered.get(channel, 0)}"
                assert end >= start
                self.covered[channel] = end
            self.gaps.append((channel, start, end, count, reason))

    @property
    def places(self):
        """For `after`: positions with their lives as far as they were told."""
        return {channel: [sequence, self.lives[channel]] if channel in self.lives else sequence
                for channel, sequence in self.covered.items()}

    @property
    def lost(self):
        return sum(gap[3] or 0 for gap in self.gaps)

    @property
    def sequences(self):
        return [event["seq"] for event in self.events]

    @property
    def payloads(self):
        return [event["payload"] for event in self.events]


class Client:
    """A DEALER with MessagePack."""

    def __init__(self, broker, endpoint=None, hello=True, client=None, epoch=0, heartbeat=0, name="test", transport="tcp",
                 answers_ping=True, **options):
        self.socket = socket(zmq.DEALER, endpoint or broker.door("listen", transport), **options)
        self.corr = 0
        self.number = 0
        self.ledgers = {}
        self.retained = []
        self.has_all_retained = False
        self.waiting = []
        self.server = 1
        self.goodbye = None
        self.answers_ping = answers_ping
        self.pings = 0
        self.pinged = 0
        self.welcome = None
        if hello:
            self.welcome = self.request("hello", version=1, client=client, epoch=epoch,
                                        options={"name": name, "heartbeat": heartbeat})
            self.server = self.welcome["server"]
            self.number = self.welcome["last"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close(0)

    # --- the form --------------------------------------------------------------------------------------

    def encode(self, op, events, fields):
        head = [NUMBERS[op], *(fields.get(name) for name in NAMES[NUMBERS[op]][1])]
        while head[-1] is None:
            head.pop()
        return pack(head, *(event_array(event) for event in events))

    def decode(self, data):
        head, *rest = unpack(data)
        name, fields = NAMES[head[0]]
        message = dict(zip(fields, head[1:]), op=name)
        if name in ("deliver", "events"):
            message["events"] = list(self.read_blocks(rest))
        return message

    def read_blocks(self, rest):
        at = 0
        while at < len(rest):
            session, when, source, sequence, instance, count, _ = rest[at]
            for i in range(count):
                yield {**event_object(rest[at + 1 + i]), "id": [self.server, session, instance + i], "seq": sequence + i,
                       "time": when, "source": {"type": "client" if source else "window", "id": source}}
            at += 1 + count

    # --- messages --------------------------------------------------------------------------------------

    def send_raw(self, *frames):
        self.socket.send_multipart(frames)

    def send(self, op, events=(), /, **fields):
        self.socket.send(self.encode(op, events, fields))

    def receive(self, timeout=DEADLINE):
        """The next message that is not a ping, after the ledgers have seen it; None: nothing came in time."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            if not self.socket.poll(max(left, 0) * 1000):
                return None
            data = b"".join(self.socket.recv_multipart())
            message = self.decode(data)
            op = message["op"]
            if op == "ping":
                self.pings += 1
                self.pinged = message["token"]
                if self.answers_ping:
                    self.send("pong", token=message["token"])
                continue
            if op == "deliver" and message.get("retained"):
                self.retained += message["events"]
                self.has_all_retained = message["retained"] == 2
            elif op == "deliver" and message["sub"] in self.ledgers:
                self.ledgers[message["sub"]].deliver(message["ranges"], message["events"], message.get("gaps") or [])
                self.ledgers[message["sub"]].bytes += len(data)
            elif op == "gap" and message["sub"] in self.ledgers:
                self.ledgers[message["sub"]].gap(message["gaps"])
            elif op == "subscribed":
                self.ledgers[message["sub"]] = Ledger(message["positions"])
            elif op == "goodbye":
                self.goodbye = message["code"]
            return message

    def wait(self, wanted, what, timeout=DEADLINE):
        """The first message for which wanted() is true, kept or new; others are kept."""
        for message in self.waiting:
            if wanted(message):
                self.waiting.remove(message)
                return message
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(end - time.monotonic(), 0))
            if message is None:
                raise AssertionError(f"did not come within {timeout} s: {what}; goodbye: {self.goodbye}")
            if wanted(message):
                return message
            if message["op"] not in ("deliver", "gap"):
                self.waiting.append(message)

    def expect(self, op, timeout=DEADLINE):
        return self.wait(lambda message: message["op"] == op, op, timeout)

    def request(self, op, /, **fields):
        self.corr += 1
        self.send(op, corr=self.corr, **fields)
        answer = self.wait(lambda message: message.get("corr") == self.corr and message["op"] in
                           ("welcome", "subscribed", "result", "events", "error"), f"the answer to {op}")
        if answer["op"] == "error":
            raise Failure(answer)
        return answer

    # --- requests --------------------------------------------------------------------------------------

    def publish(self, *events, level=1, number=None, options=None):
        """Publishes and waits: the ack entry, as a dict."""
        if number is None:
            self.number += 1
            number = self.number
        self.send("publish", events, number=number, level=level, options=options)
        return self.wait_ack(number)

    def wait_ack(self, number, timeout=DEADLINE):
        def is_about(message):
            if message["op"] == "ack":
                return any(entry[0] == number for entry in message["entries"])
            return message["op"] == "error" and message["about"] == 2 and message["corr"] == number
        answer = self.wait(is_about, f"the ack of {number}", timeout)
        if answer["op"] == "error":
            raise Failure(answer)
        others = [entry for entry in answer["entries"] if entry[0] != number]
        if others:
            self.waiting.append({"op": "ack", "entries": others})
        entry = next(entry for entry in answer["entries"] if entry[0] == number)
        return dict(zip(("number", "level", "matches", "positions", "refused"), entry))

    def subscribe(self, patterns, sub=1, start=None, **options):
        """The ledger of the new subscription."""
        answer = self.request("subscribe", sub=sub, patterns=patterns, options=options or None, **{"from": start})
        self.ledgers[sub].ends = answer.get("ends")
        return self.ledgers[sub]

    def read(self, patterns, sub=7, start=1, **options):
        """Everything up to now, as the ledger of a subscription that has ended."""
        ledger = self.subscribe(patterns, sub=sub, start=start, until="now", **options)
        self.wait(lambda message: message["op"] == "ended" and message["sub"] == sub, "the end")
        return ledger

    def query(self, **members):
        """The events found, and whether there are more."""
        answer = self.request("query", query=members)
        return answer["events"], bool(answer["more"])

    def unsubscribe(self, sub=1):
        self.request("unsubscribe", sub=sub)
        return self.ledgers.pop(sub)

    def status(self, *what):
        return self.request("status", what=list(what) or None)["value"]

    def counter(self, name):
        return self.status("counters")["counters"][name]

    def collect(self, condition, what, timeout=DEADLINE):
        """Receive until condition() is true."""
        end = time.monotonic() + timeout
        while not condition():
            message = self.receive(max(end - time.monotonic(), 0))
            if message is None:
                raise AssertionError(f"did not come within {timeout} s: {what() if callable(what) else what}; "
                                     f"goodbye: {self.goodbye}")
            if message["op"] not in ("deliver", "gap"):
                self.waiting.append(message)

    def collect_events(self, n, sub=1, timeout=DEADLINE):
        """Until n events have come or are known to be lost."""
        ledger = self.ledgers[sub]
        self.collect(lambda: len(ledger.events) + ledger.lost >= n,
                     lambda: f"{n} events (came {len(ledger.events)}, lost {ledger.lost})", timeout)
        assert len(ledger.events) + ledger.lost == n, f"more than {n}"
        return ledger

    def is_silent(self, seconds=0.2):
        """Nothing but pings comes. The time is not one to wait for something, it only bounds the look."""
        return not self.waiting and self.receive(seconds) is None


def to_json(value):
    """PROTOCOL 10: what JSON cannot hold."""
    if isinstance(value, bytes):
        return {"$binary": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(value):
    if isinstance(value, dict):
        if set(value) == {"$binary"}:
            return base64.b64decode(value["$binary"])
        if set(value) == {"$uint"}:
            return int(value["$uint"])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


class JsonClient(Client):
    """A DEALER with JSON."""

    def encode(self, op, events, fields):
        message = {"op": op, **{key: value for key, value in fields.items() if value is not None or key == "client"}}
        if op == "publish":
            message["events"] = list(events)
        return json.dumps(to_json(message)).encode()

    def decode(self, data):
        return from_json(json.loads(data))


def random_id():
    return os.urandom(16)
