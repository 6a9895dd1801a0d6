#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The golden vectors against a second implementation of what PROTOCOL.md says, which shares nothing with the C one.

messages.json: every message as `hex` (all frames together) and as `json`; the broker has number 1, and `shape` is
that of the subscription. values.json: MessagePack values and the text of their JSON form. patterns.json: what is
a path, what is a pattern, and which matches which.
"""
import base64
import json
import math
import os
import struct
import sys

import msgpack

HERE = os.path.dirname(os.path.abspath(__file__))
SERVER = 1

MESSAGES = {
    1: ("hello", "corr", "version", "client", "epoch", "options"),
    2: ("publish", "number", "level", "options"),
    3: ("subscribe", "corr", "sub", "patterns", "from", "options"),
    4: ("unsubscribe", "corr", "sub"),
    5: ("credit", "sub", "bytes", "events"),
    6: ("ping", "token"),
    7: ("pong", "token"),
    8: ("status", "corr", "what"),
    9: ("matches", "corr", "path", "min", "timeout"),
    10: ("goodbye", "code", "text"),
    11: ("cursor", "corr", "name", "positions"),
    12: ("query", "corr", "query"),
    13: ("channel", "corr", "action", "name", "settings"),
    14: ("log", "corr", "action", "options"),
    16: ("welcome", "corr", "version", "server", "run", "client_number", "last", "limits", "features"),
    17: ("subscribed", "corr", "sub", "session", "positions", "ends"),
    18: ("ack", "entries"),
    19: ("deliver", "sub", "ranges", "gaps", "retained"),
    20: ("gap", "sub", "gaps"),
    21: ("result", "corr", "value"),
    22: ("error", "about", "corr", "code", "text", "detail"),
    23: ("events", "corr", "more"),
    24: ("ended", "sub", "code", "text"),
}


class Pairs(list):
    """A map as it lies in the bytes: pairs in order, equal keys and all."""


def unpack(data):
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, object_pairs_hook=Pairs)
    unpacker.feed(data)
    return list(unpacker)


def load(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return json.load(file)


def same(a, b):
    """Equal, and 1 is not 1.0 is not true."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    return a == b


def base64_of(data):
    return base64.b64encode(data).decode()


# --- PROTOCOL 10: values ---


def map_to_json(pairs):
    keys = [key for key, _ in pairs]
    texts = all(isinstance(key, str) and "\0" not in key for key in keys)
    if not texts or len(set(keys)) != len(keys):
        return {"$map": [[to_json(key), to_json(value)] for key, value in pairs]}
    if len(keys) == 1 and keys[0].startswith("$"):
        keys = ["$" + keys[0]]
    return dict(zip(keys, (to_json(value) for _, value in pairs)))


def to_json(value):
    if isinstance(value, Pairs):
        return map_to_json(value)
    if isinstance(value, list):
        return [to_json(element) for element in value]
    if isinstance(value, bytes):
        return {"$binary": base64_of(value)}
    if isinstance(value, msgpack.ExtType):
        return {"$ext": [value.code, base64_of(value.data)]}
    if isinstance(value, float) and math.isnan(value):
        return {"$float": "nan"}
    if isinstance(value, float) and math.isinf(value):
        return {"$float": "inf" if value > 0 else "-inf"}
    if isinstance(value, int) and value > 2**63 - 1:
        return {"$uint": str(value)}
    return value


def check_values():
    values = load("values.json")
    for vector in values["both_ways"] + values["to_json"]:
        found, = unpack(bytes.fromhex(vector["hex"]))
        assert same(to_json(found), json.loads(vector["json"])), vector
    for vector in values["both_ways"]:
        yield vector["name"]
        if vector["name"] != "equal keys":  # which no Python map can hold
            plain = msgpack.unpackb(bytes.fromhex(vector["hex"]), strict_map_key=False)
            assert msgpack.packb(plain).hex() == vector["hex"], vector


# --- PROTOCOL 4, 10.1: events ---


def event_object(event):
    """What its publisher said of an event."""
    attributes = dict(event[2]) if len(event) == 3 else {}
    members = {"path": event[0]}
    for name, value in attributes.items():
        members["client_id" if name == "id" else name] = to_json(value)
    members["payload"] = to_json(event[1])
    return members


def published(members):
    """The same from JSON: without what the broker's members say, or async_nexus spells differently."""
    members = dict(members)
    if "type" in members:
        members["path"] = str(members.pop("type"))
        members["client_id"] = members.pop("id")
    for name in ("id", "seq", "time", "source"):
        members.pop(name, None)
    quiet = {"priority": 0, "headers": {}}
    return {k: v for k, v in members.items() if k == "payload" or not (v is None or (k in quiet and v == quiet[k]))}


def delivered(event, block, index, shape):
    session, time, source, sequence, instance = block[:5]
    said = event_object(event)
    if shape == "nexus":
        number = said.get("client_id", sequence + index)
        return {"id": number, "type": event[0], "priority": said.get("priority", 0), "payload": said["payload"]}
    members = {
        "id": [SERVER, session, instance + index],
        "path": event[0],
        "seq": sequence + index,
        "time": time,
        "source_time": said.get("source_time"),
        "priority": said.get("priority", 0),
        "source": {"type": "client" if source else "window", "id": source},
        "headers": said.get("headers", {}),
    }
    members.update({name: said[name] for name in ("client_id", "payload_type", "ttl") if name in said})
    members["payload"] = said["payload"]
    return members


def blocks_to_json(values, shape):
    events = []
    while values:
        block = values.pop(0)
        count, length = block[5:]
        inside = [values.pop(0) for _ in range(count)]
        assert sum(len(msgpack.packb(plain(event))) for event in inside) == length, block
        events += [delivered(event, block, index, shape) for index, event in enumerate(inside)]
    return events


def plain(value):
    if isinstance(value, Pairs):
        return {plain(key): plain(element) for key, element in value}
    return [plain(element) for element in value] if isinstance(value, list) else value


# --- PROTOCOL 5: messages ---


def head_to_json(head, is_broker):
    name, *fields = MESSAGES[head[0]]
    values = [to_json(value) for value in head[1:]]
    assert len(values) <= len(fields), head
    members = dict(zip(fields, values))
    if not is_broker and members.get("from", 0) is None:
        del members["from"]
    return {"op": name, **members}


def check_message(vector):
    data = bytes.fromhex(vector["hex"])
    values = unpack(data)
    assert b"".join(msgpack.packb(plain(value)) for value in values) == data, "not the shortest form"
    if isinstance(values[0][0], str):
        events = vector["json"] if isinstance(vector["json"], list) else [vector["json"]]
        assert [event_object(v) for v in values] == [published(e) for e in events]
        return "bare events"
    expected = dict(vector["json"])
    head = values.pop(0)
    if head[0] == 2:
        events = expected.pop("events", [])
        assert [event_object(v) for v in values] == [published(e) for e in events]
        values = []
    found = head_to_json(head, vector["from"] == "broker")
    if head[0] in (19, 23):
        found["events"] = blocks_to_json(values, vector.get("shape", "event"))
    assert not values and same(found, expected), found
    return found["op"]


def check_messages():
    seen = set()
    for vector in load("messages.json"):
        yield vector["name"]
        seen.add(check_message(vector))
    missing = {row[0] for row in MESSAGES.values()} | {"bare events"}
    assert seen == missing, f"no vector for {missing - seen}"


# --- PROTOCOL 3: paths and patterns ---


def segments(text):
    return text.split("/") if text else []


def is_text(text):
    return len(text.encode()) <= 200 and "\0" not in text


def is_path(text):
    return is_text(text) and "?" not in text and "*" not in text


def is_pattern(text):
    parts = segments(text)
    return is_text(text) and all(
        part == "?" or (part == "*" and i == len(parts) - 1) or is_path(part) for i, part in enumerate(parts))


def matches(pattern, path):
    if not pattern:
        return not path
    if pattern[0] == "*":
        return True
    return bool(path) and pattern[0] in ("?", path[0]) and matches(pattern[1:], path[1:])


def check_patterns():
    rules = load("patterns.json")
    for row in rules["paths"]:
        yield row["path"]
        assert is_path(row["path"]) == row["valid"], row
        assert not row["valid"] or (segments(row["path"]) or [""])[0] == row["channel"], row
    for row in rules["patterns"]:
        yield row["pattern"]
        assert is_pattern(row["pattern"]) == row["valid"], row
    for row in rules["matches"]:
        yield row["pattern"]
        assert matches(segments(row["pattern"]), segments(row["path"])) == row["matches"], row


def main():
    for check in (check_values, check_messages, check_patterns):
        count = 0
        name = None
        try:
            for name in check():
                count += 1
        except AssertionError as error:
            print(f"{check.__name__}: {name}: {error}", file=sys.stderr)
            return 1
        print(f"{check.__name__}: {count} vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
