#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the system tests of some modules: run.py --busbard PATH [option...] MODULE[.Class[.test]]...

--size N makes the heavy tests N times as heavy; --seconds and --seed are for the random ones. The last line counts the tests, for tools/test.sh."""
import argparse
import faulthandler
import os
import sys
import time
import unittest

from broker import Settings


class Result(unittest.TextTestResult):
    """With the time that each test took."""

    def startTest(self, test):
        self.started = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        self.stream.writeln(f"    {test.id()}: {time.monotonic() - self.started:.2f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busbard", required=True)
    parser.add_argument("--busbar")
    parser.add_argument("--example", action="append", default=[], help="programs of bus/examples")
    parser.add_argument("--libzmq", action="store_true", help="with the main door that libzmq serves")
    parser.add_argument("--sanitizer", default="")
    parser.add_argument("--size", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="how long the random tests go on")
    parser.add_argument("--seed", type=int, help="with which they begin")
    parser.add_argument("tests", nargs="+")
    arguments = parser.parse_args()
    Settings.busbard = os.path.abspath(arguments.busbard)
    Settings.busbar = os.path.abspath(arguments.busbar) if arguments.busbar else None
    Settings.examples = arguments.example
    Settings.options = ["--libzmq"] if arguments.libzmq else []
    Settings.sanitizer = arguments.sanitizer
    Settings.size = arguments.size
    Settings.seconds = arguments.seconds
    Settings.seed = arguments.seed
    sys.stdout.reconfigure(line_buffering=True)
    faulthandler.enable()
    suite = unittest.defaultTestLoader.loadTestsFromNames(arguments.tests)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    tested = result.testsRun - len(result.skipped)
    failing = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"[====] Synthesis: Tested: {tested} | Passing: {tested - failing} | Failing: {failing} | Crashing: 0")
    return 1 if failing or tested == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
