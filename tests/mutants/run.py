#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sets small wrong changes into a copy of the tree, one at a time, and runs the tests: each must be caught.

The copy and its build lie in build/mutants. A mutant that does not apply or does not compile is an error, so that the
list cannot rot; so is one that survives without an explanation in the list.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIST = os.path.join(ROOT, "tests", "mutants", "list.txt")

STAGES = ["unit", "conform", "sim", "system"]
# Which entries of ctest concern a part of the tree, the cheapest first. Sizes and timeouts are those of CI.
TESTS = {
    "broker/core/": {
        "unit": ["test_broker/", "test_core[a-z_]*/", "fuzz/core$", "test_oom/oom_core$"],
        "sim": ["sim/worlds$"],
        "system": ["positions", "exchange", "clients", "flow", "log", "edge", "host", "log_cli", "account"],
    },
    "broker/backend/": {
        "unit": ["test_log/", "test_log_driver/"],
        "conform": ["test_conform/"],
        "sim": ["sim/worlds$"],
        "system": ["log", "positions", "log_cli", "account"],
    },
    "bus/": {
        "unit": ["test_bus/"],
        "system": ["exchange", "positions", "cli", "log_cli", "account"],
    },
}
TARGETS = {
    "unit": {
        "broker/core/": ["test_broker", "test_core", "test_oom", "fuzz_core"],
        "broker/backend/": ["test_log", "test_log_driver"],
        "bus/": ["test_bus"],
    },
    "conform": {"broker/backend/": ["test_conform"]},
    "sim": {"broker/core/": ["test_sim"], "broker/backend/": ["test_sim"]},
    "system": {part: ["busbard", "busbar"] for part in TESTS},
}
FIRST_WORLDS = 300  # of the simulation, before all of them: most mutants are caught there


class Mutant:
    def __init__(self, name, path):
        self.name = name
        self.path = path
        self.text = ""
        self.survives = ""
        self.edits = []  # [find, replacement]

    def part(self):
        return next(part for part in TESTS if self.path.startswith(part))

    def apply(self, text):
        for find, replacement in self.edits:
            n = text.count(find)
            if n != 1:
                raise ValueError("%s: found %d times in %s: %s" % (self.name, n, self.path, find))
            text = text.replace(find, replacement)
        return text


def read_list():
    """list.txt says how it is written."""
    mutants = []
    kind = ""
    with open(LIST, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            before, kind = kind, line[:1]
            rest = line[2:]
            if kind == "@":
                mutants.append(Mutant(*rest.split()))
            elif kind == "|":
                mutants[-1].text = (mutants[-1].text + " " + rest).strip()
            elif kind == "?":
                mutants[-1].survives = (mutants[-1].survives + " " + rest).strip()
            elif kind == "-":
                if before != "-":
                    mutants[-1].edits.append([rest, ""])
                else:
                    mutants[-1].edits[-1][0] += "\n" + rest
            elif kind == "+":
                edit = mutants[-1].edits[-1]
                edit[1] = rest if before != "+" else edit[1] + "\n" + rest
            elif line and kind != "#":
                raise ValueError("list.txt: what is this? " + line)
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names), "a name occurs twice"
    return mutants


def check(mutants, tree):
    bad = 0
    for mutant in mutants:
        try:
            with open(os.path.join(tree, mutant.path), encoding="utf-8") as file:
                mutant.apply(file.read())
        except (OSError, ValueError) as error:
            print("does not apply:", error)
            bad += 1
    return bad


class Copy:
    """The tree that is changed, and its build."""

    def __init__(self, source, where, jobs):
        self.source = source
        self.tree = os.path.join(where, "tree")
        self.build = os.path.join(where, "build")
        self.jobs = jobs
        self.targets = set()

    def sync(self):
        """Files keep their times, so that only what differs is compiled."""
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=self.source,
                                stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
        wanted = {name for name in listed if name and os.path.isfile(os.path.join(self.source, name))}
        for base, _, files in os.walk(self.tree):
            for file in files:
                if os.path.relpath(os.path.join(base, file), self.tree) not in wanted:
                    os.remove(os.path.join(base, file))
        for name in wanted:
            self.restore(name)

    def restore(self, name):
        here = os.path.join(self.tree, name)
        there = os.path.join(self.source, name)
        with open(there, "rb") as file:
            wanted = file.read()
        if os.path.exists(here):
            with open(here, "rb") as file:
                if file.read() == wanted:
                    return
        os.makedirs(os.path.dirname(here), exist_ok=True)
        shutil.copyfile(there, here)
        shutil.copymode(there, here)

    def configure(self):
        command = ["cmake", "-S", self.tree, "-B", self.build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
                   "-DCMAKE_C_COMPILER=gcc"]
        if shutil.which("ccache"):
            command.append("-DCMAKE_C_COMPILER_LAUNCHER=ccache")
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        known = subprocess.run(["ninja", "-C", self.build, "-t", "targets", "all"], stdout=subprocess.PIPE,
                               check=True).stdout.decode()
        self.targets = {line.split(":")[0] for line in known.splitlines() if line.endswith(": phony")}

    def make(self, stage, part):
        targets = [target for target in TARGETS[stage].get(part, []) if target in self.targets]
        if not targets:
            return ""
        done = subprocess.run(["cmake", "--build", self.build, "-j", str(self.jobs), "--target"] + targets,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return "" if done.returncode == 0 else done.stdout.decode(errors="replace")

    def first_worlds(self):
        try:
            done = subprocess.run([os.path.join(self.build, "tests/sim/test_sim"), "--seeds", "1..%d" % FIRST_WORLDS],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        except subprocess.TimeoutExpired:
            return "sim/worlds (hangs)"
        if done.returncode == 0:
            return ""
        tally = re.search(r"Failing: (\d+) \| Crashing: (\d+)", done.stdout.decode(errors="replace"))
        return "sim/worlds (%d of the first %d)" % (sum(map(int, tally.groups())) if tally else 0, FIRST_WORLDS)

    def ctest(self, pattern):
        """What fails first, empty if all pass."""
        done = subprocess.run(["ctest", "--test-dir", self.build, "-R", "^" + pattern, "--stop-on-failure",
                               "--output-on-failure", "-j", str(self.jobs)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode == 0:
            return ""
        out = done.stdout.decode(errors="replace")
        names = re.findall(r"^\s*\d+ - (\S+) \((.*)\)", out, re.M)
        names = [(name, how) for name, how in names if how != "Not Run"] or names
        if not names:
            raise RuntimeError(out)
        one = re.search(r"\[FAIL\] \w+::(\w+)", out) or re.search(r"^(?:FAIL|ERROR): (\w+)", out, re.M)
        how = one.group(1) if one else names[0][1].lower()
        return "%s (%s)" % (names[0][0], how)

    def run(self, stage, part):
        if stage == "sim" and part in TARGETS["sim"]:
            caught = self.first_worlds()
            if caught:
                return caught
        for pattern in TESTS[part].get(stage, []):
            caught = self.ctest("system/%s$" % pattern if stage == "system" else pattern)
            if caught:
                return caught
        return ""


def judge(copy, part, stages):
    """Returns (what caught it, why it does not compile)."""
    for stage in stages:
        error = copy.make(stage, part)
        if error:
            return "", error
        caught = copy.run(stage, part)
        if caught:
            return caught, ""
    return "", ""


def run_control(copy, stages):
    for part in TESTS:
        caught, error = judge(copy, part, stages)
        if caught or error:
            print("the tree without a mutant fails: %s%s" % (caught, error))
            return 1
    print("the tree without a mutant passes")
    return 0


def run_one(copy, mutant, stages):
    here = os.path.join(copy.tree, mutant.path)
    with open(here, encoding="utf-8") as file:
        text = file.read()
    with open(here, "w", encoding="utf-8") as file:
        file.write(mutant.apply(text))
    try:
        return judge(copy, mutant.part(), stages)
    finally:
        copy.restore(mutant.path)


def run_all(copy, mutants, stages):
    tally = {part: [0, 0] for part in TESTS}
    bad = 0
    for mutant in mutants:
        begun = time.monotonic()
        caught, error = run_one(copy, mutant, stages)
        took = time.monotonic() - begun
        if error:
            print("%s DOES NOT COMPILE\n%s" % (mutant.name, error), flush=True)
            bad += 1
            continue
        print("%s %s (%.0f s)" % (mutant.name, "caught by " + caught if caught else "SURVIVED", took), flush=True)
        tally[mutant.part()][0] += bool(caught)
        tally[mutant.part()][1] += 1
        bad += not caught and not mutant.survives
    for part, (caught, n) in tally.items():
        print("%-16s %d of %d" % (part, caught, n))
    print("%-16s %d of %d" % ("all", sum(t[0] for t in tally.values()), sum(t[1] for t in tally.values())))
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="only see whether each mutant applies")
    parser.add_argument("--list", action="store_true", help="print the mutants")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these, or those whose names begin so")
    parser.add_argument("--tests", default="unit,conform,sim,system", help="kinds of tests (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes of a build or test run")
    parser.add_argument("--no-control", action="store_true", help="do not run the tree without a mutant first")
    parser.add_argument("--tree", default=ROOT, help="the tree that is copied (this one)")
    parser.add_argument("--where", help="where the copy lies (build/mutants)")
    options = parser.parse_args()
    mutants = read_list()
    if options.only:
        mutants = [m for m in mutants if any(m.name.startswith(only) for only in options.only)]
    if options.list:
        for mutant in mutants:
            print("%-28s %-32s %s" % (mutant.name, mutant.path, mutant.text))
        return 0
    bad = check(mutants, options.tree)
    if options.check or bad:
        print("%d mutants, %d do not apply" % (len(mutants), bad))
        return bad > 0
    stages = options.tests.split(",")
    if not set(stages) <= set(STAGES) or not mutants:
        parser.error("there is no such test or mutant")
    where = options.where or os.path.join(ROOT, "build", "mutants")
    copy = Copy(options.tree, where, options.jobs)
    copy.sync()
    copy.configure()
    if not options.no_control and run_control(copy, [stage for stage in STAGES if stage in stages]):
        return 1
    return run_all(copy, mutants, [stage for stage in STAGES if stage in stages]) > 0


if __name__ == "__main__":
    sys.exit(main())
