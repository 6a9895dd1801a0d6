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
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIST = os.path.join(ROOT, "tests", "mutants", "list.txt")

STAGES = ["unit", "conform", "sim", "long", "system"]
# Entries of ctest that concern a part of the tree, and what they need, the cheapest first. Sizes and timeouts are those
# of CI.
SYSTEM = ["busbard", "busbar"]
TESTS = {
    "broker/core/": {
        "unit": [("test_broker/", ["test_broker"]), ("test_core/", ["test_core"]), ("fuzz/core$", ["fuzz_core"])],
        "long": [("test_oom/oom_core$", ["test_oom"]), ("sim/worlds$", ["test_sim"])],
        "system": [("system/%s$" % name, SYSTEM) for name in
                   ("positions", "exchange", "clients", "flow", "log", "edge", "host", "log_cli", "account")],
    },
    "broker/backend/": {
        "unit": [("test_log_driver/", ["test_log_driver"]), ("test_log/", ["test_log"])],
        "conform": [("test_conform/", ["test_conform"])],
        "long": [("test_oom/log_oom$", ["test_oom"]), ("sim/worlds$", ["test_sim"])],
        "system": [("system/%s$" % name, SYSTEM) for name in ("log", "positions", "log_cli", "account")],
    },
    "bus/": {
        "unit": [("test_bus/", ["test_bus"])],
        "long": [("test_oom/oom_bus$", ["test_oom"])],
        "system": [("system/%s$" % name, SYSTEM) for name in ("exchange", "positions", "cli", "log_cli", "account")],
    },
}
# The first worlds of the simulation, which catch most of what all of them catch.
FIRST_WORLDS = 300
FIRST_WORLDS_PARTS = ["broker/core/", "broker/backend/"]
FIRST_WORLDS_TIMEOUT = 120


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

    def make(self, targets):
        """Returns what the compiler says if they cannot be built."""
        done = subprocess.run(["cmake", "--build", self.build, "-j", str(self.jobs), "--target"] + targets,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return "" if done.returncode == 0 else done.stdout.decode(errors="replace")

    def first_worlds(self):
        sim = os.path.join("tests", "sim")
        command = [os.path.join(self.build, sim, "test_sim"), "--seeds", "1..%d" % FIRST_WORLDS,
                   "--workers", str(self.jobs), "--open", os.path.join(self.tree, sim, "open.txt")]
        # A session of its own: its workers are processes, and one that hangs ends with it.
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True) as done:
            try:
                out = done.communicate(timeout=FIRST_WORLDS_TIMEOUT)[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                os.killpg(done.pid, signal.SIGKILL)
                return "sim/worlds (hangs)"
        if done.returncode == 0:
            return ""
        tally = re.search(r"Failing: (\d+) \| Crashing: (\d+)", out)
        return "sim/worlds (%d of the first %d)" % (sum(map(int, tally.groups())) if tally else 0, FIRST_WORLDS)

    def ctest(self, pattern):
        """What fails first, empty if all pass."""
        done = subprocess.run(["ctest", "--test-dir", self.build, "-R", "^" + pattern, "--stop-on-failure",
                               "--output-on-failure", "--no-tests=error", "-j", str(self.jobs)],
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
        """Returns (what caught it, why it does not compile)."""
        if stage == "sim" and part in FIRST_WORLDS_PARTS:
            error = self.make(["test_sim"])
            return ("", error) if error else (self.first_worlds(), "")
        for pattern, targets in TESTS[part].get(stage, []):
            error = self.make(targets)
            caught = "" if error else self.ctest(pattern)
            if error or caught:
                return caught, error
        return "", ""


class Results:
    """What each stage made of each mutant, kept beside the copy so that a campaign can be done in pieces."""

    def __init__(self, path):
        self.path = path
        self.known = {}  # (mutant, stage): what caught it, empty if nothing did
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    name, stage, caught = line.rstrip("\n").split("\t")
                    self.known[name, stage] = caught

    def add(self, mutant, stage, caught):
        self.known[mutant.name, stage] = caught
        with open(self.path, "a", encoding="utf-8") as lines:
            lines.write("%s\t%s\t%s\n" % (mutant.name, stage, caught))

    def forget(self, mutants):
        """What was known of them is no longer so."""
        names = {mutant.name for mutant in mutants}
        self.known = {key: caught for key, caught in self.known.items() if key[0] not in names}
        with open(self.path, "w", encoding="utf-8") as lines:
            lines.writelines("%s\t%s\t%s\n" % (*key, caught) for key, caught in self.known.items())

    def caught_by(self, mutant):
        """Returns (the stage, what in it), or None."""
        return next(((stage, self.known[mutant.name, stage]) for stage in STAGES
                     if self.known.get((mutant.name, stage))), None)

    def table(self, mutants):
        rows = ["%-16s %8s %s %8s" % ("", "mutants", " ".join("%8s" % stage for stage in STAGES), "survived")]
        for part in [*TESTS, ""]:
            mine = [mutant for mutant in mutants if mutant.path.startswith(part)]
            by = [self.caught_by(mutant) for mutant in mine]
            rows.append("%-16s %8d %s %8d" % (
                part or "all", len(mine), " ".join("%8d" % sum(b is not None and b[0] == stage for b in by)
                                                   for stage in STAGES), by.count(None)))
        return rows


def judge(copy, part, stages):
    """Yields each (stage, what caught it, why it does not compile), until one of the two is so."""
    for stage in stages:
        caught, error = copy.run(stage, part)
        yield stage, caught, error
        if caught or error:
            return


def run_control(copy, stages):
    for part in TESTS:
        for _, caught, error in judge(copy, part, stages):
            if caught or error:
                print("the tree without a mutant fails: %s%s" % (caught, error))
                return 1
    print("the tree without a mutant passes", flush=True)
    return 0


def run_one(copy, mutant, stages, results):
    """Returns why it does not compile."""
    here = os.path.join(copy.tree, mutant.path)
    with open(here, encoding="utf-8") as file:
        text = file.read()
    with open(here, "w", encoding="utf-8") as file:
        file.write(mutant.apply(text))
    try:
        for stage, caught, error in judge(copy, mutant.part(), stages):
            if error:
                return error
            results.add(mutant, stage, caught)
        return ""
    finally:
        copy.restore(mutant.path)


def run_all(copy, mutants, stages, results):
    bad = 0
    for mutant in mutants:
        if results.caught_by(mutant):
            continue
        begun = time.monotonic()
        error = run_one(copy, mutant, [s for s in stages if (mutant.name, s) not in results.known], results)
        took = time.monotonic() - begun
        caught = results.caught_by(mutant)
        if error:
            print("%s DOES NOT COMPILE\n%s" % (mutant.name, error), flush=True)
            bad += 1
        else:
            print("%s %s (%.0f s)" % (mutant.name, "caught by " + caught[1] if caught else "SURVIVED", took),
                  flush=True)
    return bad


def survivors(mutants, results):
    """Says which are not caught, and returns how many of them the list does not explain."""
    left = [mutant for mutant in mutants if not results.caught_by(mutant)]
    for mutant in left:
        print("%s survives: %s" % (mutant.name, mutant.survives or "WITHOUT A REASON"))
    return sum(not mutant.survives for mutant in left)


def report(mutants, results):
    """Prints the list that docs/campaigns.md has."""
    print("| mutant | caught by |\n|---|---|")
    for mutant in mutants:
        _, caught = results.caught_by(mutant) or ("", "nothing")
        print("| %s | %s |" % (mutant.name, re.sub(r"^test_\w+/(\w+) \(((?!timeout)\w+)\)$", r"\1::\2", caught)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="only see whether each mutant applies")
    parser.add_argument("--list", action="store_true", help="print the mutants")
    parser.add_argument("--report", action="store_true", help="print what caught each, by the results of earlier runs")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these, or those whose names begin so")
    parser.add_argument("--tests", default=",".join(STAGES), help="stages, in this order (%(default)s)")
    parser.add_argument("--go-on", action="store_true", help="leave out what the results of earlier runs answer")
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
    where = options.where or os.path.join(ROOT, "build", "mutants")
    if options.report:
        report(mutants, Results(os.path.join(where, "results.txt")))
        return 0
    bad = check(mutants, options.tree)
    if options.check or bad:
        print("%d mutants, %d do not apply" % (len(mutants), bad))
        return bad > 0
    stages = options.tests.split(",")
    if not set(stages) <= set(STAGES) or not mutants:
        parser.error("there is no such test or mutant")
    copy = Copy(options.tree, where, options.jobs)
    copy.sync()
    copy.configure()
    stages = [stage for stage in STAGES if stage in stages]
    if not options.no_control and run_control(copy, stages):
        return 1
    results = Results(os.path.join(where, "results.txt"))
    if not options.go_on:
        results.forget(mutants)
    bad = run_all(copy, mutants, stages, results)
    bad += survivors(mutants, results)
    print("\n".join(results.table(mutants)))
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
