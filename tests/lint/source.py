#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a regular expression can see: sizes, heads, banned calls, leftovers, suite names, files not built."""
import os
import re
import sys

TOPS = ("proto", "bus", "broker", "tools", "tests", "cmake")
MAX_LINES = 800
SPDX = "SPDX-License-Identifier: Apache-2.0"
CODE = (".c", ".h")
ALL = CODE + (".py", ".sh", ".cmake", "CMakeLists.txt")

BANNED = re.compile(
    r"(?<![\w.>])(sprintf|vsprintf|strcpy|strcat|strtok|atoi|atol|atoll|rand|srand|gets|alloca|sleep|usleep|"
    r"zclock_sleep|setjmp|longjmp|system|popen)\s*\(")
EXIT = re.compile(r"(?<![\w.>])exit\s*\(")
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
LINE_COMMENT = re.compile(r"(^|[^:])//")
SUITE = re.compile(
    r"^(?:Test|ParameterizedTest|Theory|TestSuite)\(\s*(?:\([^)]*\),\s*|[^,()]*\*\s*\w+,\s*)?(\w+)", re.M)
NOT_CODE = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_of(text):
    """The text without comments and strings, with the same lines."""
    return NOT_CODE.sub(lambda m: '""' + "\n" * m.group().count("\n"), text)


def judge_code(path, text):
    has_main = re.search(r"^int main\(", text, re.M) is not None
    code = code_of(text)
    for number, line in enumerate(code.split("\n"), 1):
        banned = BANNED.search(line)
        if banned:
            yield number, f"{banned.group(1)}() is banned"
        if EXIT.search(line) and not has_main:
            yield number, "exit() outside the file of main()"
        if LINE_COMMENT.search(line):
            yield number, "a // comment"
    if path.startswith("tests/unit/"):
        for found in SUITE.finditer(code):
            if os.path.basename(path) != f"test_{found.group(1)}.c":
                number = code.count("\n", 0, found.start()) + 1
                yield number, f"suite {found.group(1)} would not run: it must be named as its file"


def build_lists():
    """Folder -> the words of its CMakeLists.txt."""
    lists = {}
    for top in TOPS:
        for folder, _, names in os.walk(top):
            if "CMakeLists.txt" in names:
                text = open(os.path.join(folder, "CMakeLists.txt"), encoding="utf-8").read()
                lists[folder] = set(re.findall(r"[\w./-]+", text))
    return lists


def is_built(path, lists):
    """Whether a CMakeLists.txt names the file, or the one beside it the suite, fuzz target or example in it."""
    folder, name = os.path.split(path)
    target = re.sub(r"^(test|fuzz)_|\.c$", "", name)
    return (any(os.path.relpath(path, f) in words for f, words in lists.items())
            or target in lists.get(folder, ())
            or path == "tests/fuzz/driver.c")


def judge(path, text, lists):
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        yield len(lines), f"more than {MAX_LINES} lines"
    if SPDX not in "\n".join(lines[:2]):
        yield 1, f"no {SPDX} at the top"
    for number, line in enumerate(lines, 1):
        if LEFTOVER.search(line):
            yield number, "leftover"
        if line != line.rstrip() or "\t" in line:
            yield number, "tab or trailing space"
    if path.endswith(CODE):
        yield from judge_code(path, text)
    if path.endswith(".c") and not is_built(path, lists):
        yield 1, "no CMakeLists.txt builds this file"


def main():
    bad = 0
    lists = build_lists()
    for top in TOPS:
        for folder, _, names in os.walk(top):
            for name in sorted(n for n in names if n.endswith(ALL)):
                path = os.path.join(folder, name)
                for number, wrong in judge(path, open(path, encoding="utf-8").read(), lists):
                    print(f"{path}:{number}: {wrong}")
                    bad += 1
    return 1 if bad else 0


sys.exit(main())
