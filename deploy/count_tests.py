# SPDX-License-Identifier: MIT
"""count_tests.py FILE...: how many tests ran, from what the runners wrote.

FILE is meson's testlog-*.json or a JUnit XML of pytest. The first line printed is "PASSED FAILED SKIPPED";
after it comes the whole output of each test that failed, and the reason of each skip. Tests inside a
program count by its own closing lines (cmocka's, pytest's); a program without any counts as one test.
A skip counts as a failure unless its reason is that shared/ is absent, which is no part of a clone:
anything else missing is a missing installation, and those are errors.
"""
import json
import re
import sys
import xml.etree.ElementTree as ET

CMOCKA = re.compile(r"^\[  (PASSED|FAILED)  \] (\d+) test\(s\)", re.M)
PYTEST = re.compile(r"^=* ?((?:\d+ (?:passed|failed|errors?|skipped|xfailed|xpassed|warnings?|deselected)"
                    r"(?:, )?)+) in [\d.]+", re.M)
SKIP_REASON = re.compile(r"^(?:SKIPPED \[\d+\]|\[  SKIPPED \]).*$", re.M)


def allowed(reason):
    return "shared" in reason


def inside(text):
    """(passed, failed, skipped) as the program's own runner tells it; None when it tells nothing."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    told = False
    for word, number in CMOCKA.findall(text):
        counts[word.lower()] += int(number)
        told = True
    for line in PYTEST.findall(text):
        told = True
        for number, word in re.findall(r"(\d+) (\w+)", line):
            word = "failed" if word in ("error", "errors", "xpassed") else word
            if word in counts:
                counts[word] += int(number)
    return (counts["passed"], counts["failed"], counts["skipped"]) if told else None


def from_meson(path):
    passed = failed = skipped = 0
    for line in open(path, encoding="utf-8", errors="replace"):
        test = json.loads(line)
        text = (test.get("stdout") or "") + (test.get("stderr") or "")
        p, f, s = inside(text) or (0, 0, 0)
        show = None
        if test["result"] in ("SKIP", "EXPECTEDFAIL"):
            p, f = 0, 0
            s = 1
        if test["result"] in ("OK", "SKIP"):
            if p + f + s == 0:
                p = 1
            if s and not all(allowed(r) for r in SKIP_REASON.findall(text) or [text]):
                f, s, show = f + s, 0, "was skipped, which is no pass"
            elif s:
                print_later("%s: skipped: %s" % (test["name"], last_line(text)))
        else:
            f = max(f, 1)
            show = "%s after %.1f s" % (test["result"].lower(), test.get("duration", 0))
        if show:
            print_later("--- %s: %s\n%s\n" % (test["name"], show, text.rstrip()))
        passed, failed, skipped = passed + p, failed + f, skipped + s
    return passed, failed, skipped


def from_junit(path):
    passed = failed = skipped = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        name = "%s::%s" % (case.get("classname"), case.get("name"))
        bad = [e for e in case if e.tag in ("failure", "error")]
        skips = [e.get("message") or "" for e in case if e.tag == "skipped"]
        if bad:
            failed += 1
            out = [e.text or "" for e in case if e.tag in ("system-out", "system-err")]
            print_later("--- %s\n%s\n" % (name, "\n".join([e.text or "" for e in bad] + out).rstrip()))
        elif skips and not all(allowed(r) for r in skips):
            failed += 1
            print_later("--- %s: was skipped, which is no pass: %s\n" % (name, "; ".join(skips)))
        elif skips:
            skipped += 1
            print_later("%s: skipped: %s" % (name, "; ".join(skips)))
        else:
            passed += 1
    return passed, failed, skipped


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "without a reason"


later = []
print_later = later.append


def main():
    total = [0, 0, 0]
    for path in sys.argv[1:]:
        counts = from_junit(path) if path.endswith(".xml") else from_meson(path)
        total = [a + b for a, b in zip(total, counts)]
    print("%d %d %d" % tuple(total))
    for text in later:
        print(text)


main()
