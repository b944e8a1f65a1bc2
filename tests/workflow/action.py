# SPDX-License-Identifier: MIT
"""Runs action.yml, and jobs of a workflow, as GitHub's runner would: step by step, each a command in a
shell of its own with the environment that the file gives it and nothing else of ours.

Of GitHub's expressions it knows what the files use, and refuses others: `inputs.NAME`, `github.NAME`,
`matrix.NAME`, `steps.ID.outputs.NAME`, and `==` with a word in quotes.
"""
import os
import re
import subprocess

import yaml

from service import ROOT

STEP_S = 60
NAME = r"(inputs|steps|github|matrix)\.([\w-]+)(?:\.outputs\.([\w-]+))?"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return yaml.safe_load(f)


class Steps:
    """What a run left: `ok`, `log`, `ran` (the names of the steps)."""

    def __init__(self, folder, path, env, cwd=None, **known):
        self.folder = str(folder)
        self.cwd = str(cwd or folder)
        os.makedirs(self.folder, exist_ok=True)
        self.env = {"PATH": path, "HOME": self.folder, "LANG": "C.UTF-8", **env}
        self.known = known  # "inputs", "github", "matrix": what is under each
        self.steps = {}
        self.ids = []
        self.ran = []
        self.log = ""
        self.ok = True

    def go(self, steps, uses=None):
        """USES: what stands for an action, by its name without the version; given the run and `with`."""
        self.ids = [s["id"] for s in steps if "id" in s]
        for step in steps:
            if not self.ok or ("if" in step and self.value(step["if"]) != "true"):
                continue
            if "uses" in step:
                uses[step["uses"].split("@")[0]](
                    self, {k: self.text(v) if isinstance(v, str) else v for k, v in
                           step.get("with", {}).items()})
            else:
                self.step(step)

    def file(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8") as f:
            return f.read()

    def name(self, text):
        found = re.fullmatch(NAME, text)
        assert found, "an expression this runner does not know: %s" % text
        if found[1] != "steps":
            return self.known[found[1]][found[2]]
        assert found[2] in self.ids, "no step has the id %s" % found[2]
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
        assert step.get("shell", "bash") == "bash" and "${{" not in step["run"]
        output = os.path.join(self.folder, "output-%d" % len(self.ran))
        env = {**self.env, "GITHUB_OUTPUT": output,
               **{k: self.text(v) for k, v in step.get("env", {}).items()}}
        # GitHub: bash --noprofile --norc -eo pipefail {0}
        done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c",
                               step["run"]], env=env, cwd=self.cwd, timeout=STEP_S,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        self.ran.append(step.get("name", step["run"]))
        self.log += done.stdout
        self.ok = done.returncode == 0
        if "id" in step:
            lines = self.file(os.path.basename(output)).splitlines()
            self.steps[step["id"]] = dict(line.split("=", 1) for line in lines)


class Run(Steps):
    """action.yml; besides `summary` and `outputs`."""

    def __init__(self, folder, inputs, path, env):
        action = read("action.yml")
        unknown = set(inputs) - set(action["inputs"])
        assert not unknown, "no such input: %s" % unknown
        super().__init__(folder, path, {
            "OTA_POLL_S": "0.1", "OTA_RETRIES": "0", "GITHUB_ACTION_PATH": ROOT,
            "GITHUB_STEP_SUMMARY": os.path.join(str(folder), "summary"), **env},
            inputs={k: inputs.get(k, v.get("default", "")) for k, v in action["inputs"].items()})
        steps = action["runs"]["steps"]
        assert all(s["shell"] == "bash" for s in steps)
        self.go(steps)
        self.summary = self.file("summary")
        self.outputs = {k: self.text(v["value"]) for k, v in action["outputs"].items()}
