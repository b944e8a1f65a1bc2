#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""man.py SECTION VERSION [WRAPPER...] PROGRAM: a manual page from what PROGRAM --help prints, and each of its
commands. WRAPPER runs it where it is another machine's.

The help is printed from the tables of options, so that the page can say nothing else.
"""
import os
import re
import subprocess
import sys
import time


def ask(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip()


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\`")
    return "\\&" + text if text.startswith((".", "\\(aq")) else text


def body(lines):
    """Paragraphs, lists of a word and its meaning, and lines to type, told apart by their indent."""
    out, item = [], False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        row = re.match(r"  (\S(?:.*?\S)?)(?:(?:  +|(?<=[A-Z\]]) (?=[a-z]))(\S.*)|(  \[.*\]))?$", line)
        if not line:
            out.append(".PP")
            item = False
        elif re.fullmatch(r"[A-Z][\w ]*:", line):
            out += [".PP", ".B " + escape(line[:-1])]
        elif indent > 2 and item:
            out.append(escape(line.strip()))
        elif indent >= 2 and row and re.match(r"  (-|[A-Z]+_)", line) or (row and row[2]):
            default = " \\fI%s\\fR" % escape(row[3].strip()) if row[3] else ""
            out += [".TP", "\\fB%s\\fR%s" % (escape(row[1]), default)]
            out += [escape(row[2])] if row[2] else []
            item = True
        elif indent >= 2:
            out += [".RS", ".nf", escape(line.strip()), ".fi", ".RE"]
        else:
            out.append(escape(line))
    return out


def commands(text):
    """The names under "Commands:"."""
    found = re.search(r"^Commands:\n((?:  .*\n)+)", text + "\n", re.M)
    return [line.split()[0] for line in found[1].splitlines()] if found else []


def usage_and_rest(text):
    lines = text.splitlines()
    if lines[0].startswith("Usage: "):
        return lines[0][len("Usage: "):], lines[1:]
    return lines[0].split(":")[0] + " [OPTION...]", [lines[0].split(": ", 1)[1], *lines[1:]]


def subcommands(program, path):
    out = []
    for name in commands(ask(*program, *path, "--help")):
        text = ask(*program, *path, name, "--help")
        usage, rest = usage_and_rest(text)
        # What holds everywhere stands once, above.
        rest = "\n".join(rest).split("\nEverywhere:")[0].strip().splitlines()
        out += [".SS " + escape(usage), *body(rest), *subcommands(program, [*path, name])]
    return out


def main():
    section, version, *program = sys.argv[1:]
    name = os.path.basename(program[-1])
    usage, rest = usage_and_rest(ask(*program, "--help"))
    while rest and not rest[0]:
        rest.pop(0)
    what = rest[0].split(":")[0].rstrip(".,")
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH",
                                                                  time.time()))))
    page = ['.TH %s %s "%s" "Paku OTA %s"' % (name.upper().replace("-", "\\-"), section, day,
                                             version),
            ".SH NAME", "%s \\- %s" % (escape(name), escape(what[:1].lower() + what[1:])),
            ".SH SYNOPSIS", escape(usage), ".SH DESCRIPTION", *body(rest)]
    more = subcommands(program, [])
    if more:
        page += [".SH COMMANDS", *more]
    print("\n".join(page))


if __name__ == "__main__":
    main()
