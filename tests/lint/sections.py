#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each section of PROTOCOL.md that a file cites ("PROTOCOL 7.1", "PROTOCOL 4, 10.1 and 11") is there, and so is each that the
page itself refers to ("section 6.2", "sections 3 and 4")."""
import os
import re
import sys

PAGE = "proto/PROTOCOL.md"
TOPS = ("proto", "bus", "broker", "tools", "tests", "bindings", "gateway", "examples", "docs", "ARCHITECTURE.md", "README.md")
ENDINGS = (".c", ".h", ".def", ".py", ".sh", ".md", ".txt", ".rs", ".ts")

NUMBER = r"\d+(?:\.\d+)?(?![\d.]*\d)"
LIST = rf"({NUMBER}(?:(?:,| and| to|, and) {NUMBER})*)"
CITED = re.compile(rf"\bPROTOCOL(?:\.md)?(?:,? sections?)? {LIST}")
REFERRED = re.compile(rf"\bsections? {LIST}")
HEADING = re.compile(r"^#+ (\d+(?:\.\d+)?)\.? ", re.M)


def cited(text, pattern):
    """Line number and section of each citation; a line end may be where the text has a space."""
    flat = re.sub(r"\n[ \t*#/]*", lambda m: " " * len(m.group()), text)
    for match in re.compile(pattern.pattern.replace(" ", " +")).finditer(flat):
        line = text.count("\n", 0, match.start()) + 1
        for section in re.findall(NUMBER, match.group(1)):
            yield line, section


def files():
    for top in TOPS:
        if os.path.isfile(top):
            yield top
        for folder, _, names in os.walk(top):
            yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(ENDINGS))


def main():
    bad = 0
    with open(PAGE, encoding="utf-8") as page:
        text = page.read()
    sections = set(HEADING.findall(text))
    for path in files():
        with open(path, encoding="utf-8") as file:
            found = list(cited(file.read(), CITED))
        if path == PAGE:
            found += cited(text, REFERRED)
        for line, section in found:
            if section not in sections:
                print(f"{path}:{line}: {PAGE} has no section {section}")
                bad += 1
    return 1 if bad or not sections else 0


if __name__ == "__main__":
    sys.exit(main())
