#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each fault in docs/faults.md names what finds it again, and each test that is named there exists."""
import os
import re
import sys

LEDGER = "docs/faults.md"
ROW = re.compile(r"^\| (?!fault \|)(?P<fault>.+?) \| (?P<tests>[^|]*) \|$")
NAME = re.compile(r"\b([a-z0-9_]+)::([A-Za-z0-9_]+)")
TEST = re.compile(r"\b(?:Test|ParameterizedTest)\(\s*(?:[^,()]+\*?,\s*)?([a-z0-9_]+),\s*([A-Za-z0-9_]+)")
STORE = re.compile(r"^(?:memory|lmdb)_")  # of a conformance test, which is written once for both


def sources(top="tests"):
    for folder, _, names in os.walk(top):
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".c"))


def existing():
    tests, functions = set(), set()
    for path in sources():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tests.update(TEST.findall(text))
        if "/conform/" in path:
            suite = os.path.basename(path)[len("test_"):-len(".c")]
            functions.update((suite, name) for name in re.findall(r"^ON_STORES\((\w+)\)", text, re.M))
    return tests, functions


def main():
    tests, functions = existing()
    bad = 0
    with open(LEDGER, encoding="utf-8") as ledger:
        rows = [(number, ROW.match(line)) for number, line in enumerate(ledger, 1)]
    rows = [(number, row) for number, row in rows if row and not row["fault"].startswith("---")]
    for number, row in rows:
        if not row["tests"].strip():
            print(f"{LEDGER}:{number}: nothing finds it again")
            bad += 1
        for suite, name in NAME.findall(row["tests"]):
            if (suite, name) not in tests and (suite, STORE.sub("", name)) not in functions:
                print(f"{LEDGER}:{number}: there is no test {suite}::{name}")
                bad += 1
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
