# SPDX-License-Identifier: MIT
"""Runs action.yml as GitHub's runner would: step by step, each a command in a shell of its own with
the environment that the file gives it and nothing else of ours.

Of GitHub's expressions it knows what the file uses, and refuses others: `inputs.NAME`,
`steps.ID.outputs.NAME`, and `==` with a word in quotes.
"""
import os
import re
import subprocess

import yaml

from service import ROOT

STEP_S = 60
NAME = r"(inputs|steps)\.([\w-]+)(?:\.outputs\.([\w-]+))?"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return yaml.safe_load(f)


class Run:
    """What a run left: `ok`, `log`, `summary`, `outputs`, `ran` (the names of the steps)."""

    def __init__(self, folder, inputs, path, env):
        self.action = read("action.yml")
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        unknown = set(inputs) - set(self.action["inputs"])
        assert not unknown, "no such input: %s" % unknown
        self.inputs = {k: inputs.get(k, v.get("default", "")) for k, v in
                       self.action["inputs"].items()}
        self.env = {"PATH": path, "HOME": self.folder, "LANG": "C.UTF-8", "OTA_POLL_S": "0.1",
                    "OTA_RETRIES": "0", "GITHUB_ACTION_PATH": ROOT,
                    "GITHUB_STEP_SUMMARY": os.path.join(self.folder, "summary"), **env}
        self.steps = {}
        self.ran = []
        self.log = ""
        self.ok = True
        for step in self.action["runs"]["steps"]:
            if self.ok and ("if" not in step or self.value(step["if"]) == "true"):
                self.step(step)
        self.summary = self.file("summary")
        self.outputs = {k: self.text(v["value"]) for k, v in self.action["outputs"].items()}

    def file(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8") as f:
            return f.read()

    def name(self, text):
        found = re.fullmatch(NAME, text)
        assert found, "an expression this runner does not know: %s" % text
        if found[1] == "inputs":
            return self.inputs[found[2]]
        ids = [s["id"] for s in self.action["runs"]["steps"] if "id" in s]
        assert found[2] in ids, "no step has the id %s" % found[2]
        return self.steps.get(found[2], {}).get(found[3], "")

    def value(self, expression):
        left, equals, right = (p.strip() for p in expression.partition("=="))
        if not equals:
            return self.name(left)
        assert re.fullmatch("'[^']*'", right)
        return "true" if self.name(left) == right[1:-1] else "false"

    def text(self, text):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: self.value(m[1].strip()), text)

    def step(self, step):
        assert step["shell"] == "bash" and "${{" not in step["run"]
        output = os.path.join(self.folder, "output-%d" % len(self.ran))
        env = {**self.env, "GITHUB_OUTPUT": output,
               **{k: self.text(v) for k, v in step.get("env", {}).items()}}
        # GitHub: bash --noprofile --norc -eo pipefail {0}
        done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c",
                               step["run"]], env=env, cwd=self.folder, timeout=STEP_S,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        self.ran.append(step["name"])
        self.log += done.stdout
        self.ok = done.returncode == 0
        if "id" in step:
            lines = self.file(os.path.basename(output)).splitlines()
            self.steps[step["id"]] = dict(line.split("=", 1) for line in lines)
