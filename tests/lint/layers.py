#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Includes are written from the root and only point down; what the pure parts may not touch is not included."""
import os
import re
import sys

# Folder, or file without its ending -> folders it may include and whose functions it may use, besides itself. The longest one
# that is the beginning of a file's path counts: what has a row of its own is no part of the folder around it.
LAYERS = {
    "proto/base": [],
    "proto/wire": ["proto/base"],
    "proto/json": ["proto/base", "proto/wire"],
    "proto/io": ["proto/base", "proto/wire"],
    "bus": ["proto"],
    "bus/api": ["proto", "bus"],
    "bus/examples": ["proto", "bus", "bus/api"],
    "broker/core": ["proto/base", "proto/wire"],
    "broker/backend": ["proto/base", "proto/wire", "broker/core"],
    "broker/plug": ["proto", "broker/core"],
    "broker/plug/zmq": ["proto", "broker/core", "broker/plug"],
    "broker/host": ["proto", "broker/core", "broker/backend", "broker/plug"],
    "broker": ["proto", "broker"],
    "tools": ["proto", "bus"],
    "tests": [""],
}

# Rooms of a folder, lowest first: each may use those below it, and the files of the folder that are in no room.
ROOMS = {
    "broker/core": ["keep", "clients", "subs", "deliver", "log", "ingest", "requests", ("core.c", "tick", "leave", "check")],
}

# What the state of a folder is made of lies in its rooms, so its header may include them all, and they include it.
STATES = {"broker/core": "state"}


def add_rooms():
    for folder, rooms in ROOMS.items():
        below = [folder]
        for room in rooms:
            names = [f"{folder}/{name}" for name in ([room] if isinstance(room, str) else room)]
            for name in names:
                LAYERS[name] = [*LAYERS[folder], *below, *names, f"{folder}/{STATES[folder]}"]
            below += names
        LAYERS[f"{folder}/{STATES[folder]}"] = [*LAYERS[folder], *below]
        LAYERS[folder] = [*LAYERS[folder], f"{folder}/{STATES[folder]}"]


add_rooms()

# System headers -> the only layers that may include them. proto/wire, proto/json and broker/core have no
# sockets, threads, files or clock. proto/base is what asks the system: for the time and who the user is.
OUTSIDE = ["proto/io", "bus", "bus/api", "bus/examples", "broker/plug", "broker/plug/zmq", "broker/backend", "broker/host",
           "broker", "tools", "tests"]
SYSTEM = {
    r"zmq\.h": ["broker/plug/zmq", "tests"],
    r"poll\.h|sys/socket\.h|sys/un\.h|sys/epoll\.h|sys/\w+fd\.h|netinet/.*|arpa/.*": OUTSIDE,
    r"pthread\.h|threads\.h|signal\.h|fcntl\.h|sys/stat\.h|sys/mman\.h": OUTSIDE,
    r"time\.h|sys/time\.h|unistd\.h": ["proto/base", *OUTSIDE],
    r"lmdb\.h|dlfcn\.h": ["broker/backend", "tests"],
    r"jansson\.h": ["proto/json", "tools", "tests"],
    r"czmq\.h": ["broker", "tools", "tests"],
    r"criterion/.*": ["tests"],
}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def inside(path, folder):
    return folder in ("", path, os.path.splitext(path)[0]) or path.startswith(folder + "/")


def may_use(layer, path):
    """Whether files of the layer may use the file at path: it is of the same layer, or in one of those below."""
    other = layer_of(path)
    return other == layer or any(inside(other or path, below) for below in LAYERS[layer])


def layer_of(path):
    return max((f for f in LAYERS if inside(path, f)), key=len, default=None)


def judge(path, kind, name):
    """What is wrong with this include in the file at path, or None."""
    layer = layer_of(path)
    if layer is None:
        return "the folder has no row in tests/lint/layers.py"
    if kind == '"':
        if not os.path.exists(name):
            return f'"{name}" is not a path from the root'
        if not may_use(layer, name):
            return f'{layer} may not include "{name}"'
        return None
    for pattern, layers in SYSTEM.items():
        if re.fullmatch(pattern, name) and layer not in layers:
            return f"{layer} may not include <{name}>"
    return None


def main():
    bad = 0
    for top in ("proto", "bus", "broker", "tools", "tests"):
        for folder, _, names in os.walk(top):
            for file in sorted(n for n in names if n.endswith((".c", ".h"))):
                path = os.path.join(folder, file)
                for number, line in enumerate(open(path, encoding="utf-8"), 1):
                    match = INCLUDE.match(line)
                    wrong = match and judge(path, *match.groups())
                    if wrong:
                        print(f"{path}:{number}: {wrong}")
                        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
