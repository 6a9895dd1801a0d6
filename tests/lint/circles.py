#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No circles: the files of one folder call each other in one direction, headers include each other in one, and no file uses
what is defined in a layer above its own (tests/lint/layers.py).

circles.py BUILD_DIR: what the object files need and define decides, so addresses that are taken count as calls do."""
import collections
import os
import re
import subprocess
import sys

import layers

TOPS = ("broker", "bus", "proto", "tools")
OBJECT = re.compile(r"(.*)/CMakeFiles/[^/]+\.dir/(.*)\.o$")


def sources(endings):
    for top in TOPS:
        for folder, _, names in os.walk(top):
            yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(endings))


def objects(build):
    """Source -> one of its objects."""
    found = {}
    for top in TOPS:
        for folder, _, names in os.walk(os.path.join(build, top)):
            for name in names:
                match = OBJECT.match(os.path.relpath(os.path.join(folder, name), build))
                source = match and os.path.normpath(os.path.join(*match.groups()))
                if source and os.path.exists(source):
                    found[source] = os.path.join(folder, name)
    return found


def symbols(found):
    """Source -> symbols it needs, and symbol -> source that defines it."""
    needed, defined = collections.defaultdict(set), {}
    of = {path: source for source, path in found.items()}
    text = subprocess.run(["nm", "-A", "-g", *of], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        path, rest = line.split(":", 1)
        kind, symbol = rest.split()[-2:]
        if kind in "Uvw":
            needed[of[path]].add(symbol)
        elif symbol != "main":
            defined[symbol] = of[path]
    return needed, defined


def uses(build):
    """(file, file that it uses) -> the symbols."""
    edges = collections.defaultdict(set)
    needed, defined = symbols(objects(build))
    for source, names in needed.items():
        for name in names:
            if defined.get(name, source) != source:
                edges[source, defined[name]].add(name)
    return edges


def includes():
    """(header, header that it includes) -> nothing more to say."""
    edges = {}
    for header in sources(".h"):
        with open(header, encoding="utf-8") as file:
            for name in re.findall(r'^\s*#\s*include\s*"([^"]+\.h)"', file.read(), re.M):
                edges[header, name] = set()
    return edges


def reachable(graph, start):
    """File -> the one before it on a shortest way from start."""
    before, queue = {}, collections.deque([start])
    while queue:
        file = queue.popleft()
        for after in sorted(graph[file]):
            if after not in before:
                before[after] = file
                queue.append(after)
    return before


def circles(edges):
    """Of each set of files that all reach each other: the set, and a shortest circle in it."""
    graph = collections.defaultdict(set)
    for source, target in edges:
        graph[source].add(target)
    before = {file: reachable(graph, file) for file in sorted(graph)}
    seen = set()
    for file, ways in before.items():
        if file in seen or file not in ways:
            continue
        members = sorted(other for other in ways if file in before.get(other, {}))
        seen.update(members)
        yield members, min((circle_of(before[member], member) for member in members), key=len)


def circle_of(before, start):
    way = [start]
    while len(way) == 1 or way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def in_words(circle, edges, verb):
    steps = []
    for source, target in zip(circle, circle[1:]):
        names = sorted(edges[source, target])
        said = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
        steps.append(f"{target}{said}")
    return f"{circle[0]} {verb} " + f", which {verb} ".join(steps)


def judge(build):
    """One sentence for each thing that is wrong."""
    edges = uses(build)
    missing = sorted(set(sources(".c")) - set(objects(build)))
    yield from (f"{source}: no object file in {build}" for source in missing)
    for source, target in sorted(edges):
        if not layers.may_use(layers.layer_of(source), target):
            names = ", ".join(sorted(edges[source, target]))
            yield f"{source} uses {names} of {target}, which is in a layer above it"
    folders = collections.defaultdict(dict)
    for (source, target), names in edges.items():
        if os.path.dirname(source) == os.path.dirname(target):
            folders[os.path.dirname(source)][source, target] = names
    for folder, inner in sorted(folders.items()):
        for members, circle in circles(inner):
            yield f"{folder}: {len(members)} files call each other in circles: {in_words(circle, inner, 'uses')}"
    headers = includes()
    for members, circle in circles(headers):
        yield f"{len(members)} headers include each other: {in_words(circle, headers, 'includes')}"


def main():
    wrong = list(judge(sys.argv[1]))
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
