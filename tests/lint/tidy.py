#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over every compiled file but the Criterion tests, whose macros it judges
instead of the test, and what stands in for the C library.

tidy.py BUILD_DIR JOBS; the build was configured with clang. A file that passed is not checked again until
what the compiler sees of it, or .clang-tidy, changes.
"""
import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys

SKIPPED = ("tests/campaign/", "tests/conform/model.c", "tests/conform/test_", "tests/conform/world.c", "tests/sim/", "tests/unit/")


def preprocessed(entry):
    words = shlex.split(entry["command"])
    out = words.index("-o")
    words[out:out + 2] = ["-o", "-"]
    words[words.index("-c")] = "-E"
    words += ["-C", "-dD"]
    return subprocess.run(words, cwd=entry["directory"], capture_output=True, check=False).stdout


def tidy(entry, build, config):
    """Empty when the file is clean, otherwise what clang-tidy says."""
    stamp = os.path.join(build, "tidy", hashlib.sha256(config + preprocessed(entry)).hexdigest())
    if os.path.exists(stamp):
        return ""
    run = subprocess.run(["clang-tidy-14", "--quiet", "-p", build, entry["file"]], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if run.returncode == 0:
        open(stamp, "w", encoding="ascii").close()
        return ""
    return run.stdout or run.stderr


def main():
    build, jobs = sys.argv[1], int(sys.argv[2])
    os.makedirs(os.path.join(build, "tidy"), exist_ok=True)
    with open(".clang-tidy", "rb") as file:
        config = file.read()
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = {entry["file"]: entry for entry in json.load(file)}
    entries = [e for name, e in sorted(entries.items()) if not os.path.relpath(name).startswith(SKIPPED)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        said = [text for text in pool.map(lambda e: tidy(e, build, config), entries) if text]
    print("\n".join(said))
    print(f"{len(entries)} files, {len(said)} not clean")
    return 1 if said or not entries else 0


sys.exit(main())
