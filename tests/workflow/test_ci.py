# SPDX-License-Identifier: MIT
"""The workflow that builds, tests and releases this project, job by job in a copy of the tree. What takes
long stands there as a script that leaves what the real one would (the real ones are parts of ./check and
.ci/run); `gh` keeps its releases in a folder."""
import os
import re
import shutil
import stat
import subprocess

import pytest

import action
from service import ROOT

FLOW = ".github/workflows/ci.yaml"
PACKAGES = ("paku-ota", "paku-device", "libpaku-device-dev")
ARCHES = ("amd64", "arm64")

# A release is a folder: its files, "notes", and "draft" as long as it is one.
GH = r"""#!/bin/bash
set -euo pipefail
[ "$GH_TOKEN" = a-token ] && [ "$GH_REPO" = someone/paku-ota ] && [ "$1" = release ]
at=$RELEASES/$3
verb=$2
shift 3
case $verb in
view) [ -d "$at" ] && { [ -e "$at/draft" ] && echo true || echo false; } ;;
delete) rm -r "$at" ;;
edit) [ "$*" = --draft=false ] && rm "$at/draft" ;;
download) mkdir -p "$4" && [ "$1 $3" = '--pattern --dir' ] && cp "$at/$2" "$4" ;;
create)
	[ "$1 $2 $3" = '--verify-tag --draft --title' ] && [ "$5" = --notes-file ]
	mkdir "$at" && touch "$at/draft" && cp "$6" "$at/notes"
	shift 6
	[ ! -e "$RELEASES/broken" ] || exit 1
	cp "$@" "$at"
	;;
*) exit 64 ;;
esac
"""
# As tests/package/... leave them; BYTES is what another build would change.
BUILD = r"""#!/bin/bash
set -euo pipefail
version=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" meson.build)
mkdir -p dist
for package in paku-ota paku-device libpaku-device-dev; do
	mkdir -p "$HOME/deb/DEBIAN"
	printf 'Package: %%s\nVersion: %%s\nArchitecture: %(arch)s\nMaintainer: t <t@example.org>\nDescription: %%s\n' \
		"$package" "$version" "${BYTES:-t}" >"$HOME/deb/DEBIAN/control"
	SOURCE_DATE_EPOCH=1 dpkg-deb --build --root-owner-group "$HOME/deb" "dist/${package}_${version}_%(arch)s.deb" >/dev/null
done
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Forge:
    """Where jobs run: a checkout a job, artifacts that they share, releases."""

    def __init__(self, tmp_path):
        self.tmp, self.tools, self.runs = tmp_path, tmp_path / "tools", 0
        self.releases, self.artifacts = tmp_path / "releases", tmp_path / "artifacts"
        self.releases.mkdir()
        self.artifacts.mkdir()
        self.jobs = action.read(FLOW)["jobs"]
        program(self.tools / "gh", GH)
        program(self.tools / "apt-get", "#!/bin/sh\n")
        self.change = lambda tree: None  # what a test wants to be different in the checkout

    def checkout(self, run, _):
        tree = self.tmp / ("tree-%d" % self.runs)
        for name in ("meson.build", "debian/changelog", "deploy/release"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if os.path.isdir(os.path.join(ROOT, name)) else shutil.copy
            copy(os.path.join(ROOT, name), tree / name)
        program(tree / "check", "#!/bin/sh\necho '3 passed, 0 failed'\n")
        program(tree / "tests/package/bare", BUILD % {"arch": "amd64"})
        program(tree / "tests/package/arm64", BUILD % {"arch": "arm64"})
        self.change(tree)
        run.cwd = str(tree)

    def upload(self, run, given):
        found = subprocess.run(["bash", "-c", "ls %s" % given["path"]], cwd=run.cwd, check=True,
                               capture_output=True, text=True).stdout.split()
        (self.artifacts / given["name"]).mkdir(exist_ok=True)
        for name in found:
            shutil.copy(os.path.join(run.cwd, name), self.artifacts / given["name"])

    def download(self, run, given):
        assert given["merge-multiple"] is True
        os.makedirs(os.path.join(run.cwd, given["path"]), exist_ok=True)
        for one in self.artifacts.glob(given["pattern"]):
            for name in one.iterdir():
                shutil.copy(name, os.path.join(run.cwd, given["path"]))

    def job(self, name, tag="", matrix=None, **env):
        self.runs += 1
        github = {"ref_type": "tag" if tag else "branch", "ref_name": tag or "main",
                  "token": "a-token", "repository": "someone/paku-ota"}
        run = action.Steps(self.tmp / ("job-%d" % self.runs), "%s:%s" % (
            self.tools, os.environ["PATH"]), {"GITHUB_REF_NAME": github["ref_name"],
                                              "RELEASES": str(self.releases), **env},
                           github=github, matrix=matrix or {})
        job = self.jobs[name]
        if "if" in job and run.value(job["if"]) != "true":
            return None
        run.go(job["steps"], {"actions/checkout": self.checkout,
                              "actions/upload-artifact": self.upload,
                              "actions/download-artifact": self.download})
        return run

    def packages(self, tag="", **env):
        runs = [self.job("packages", tag, m, **env) for m in
                self.jobs["packages"]["strategy"]["matrix"]["include"]]
        assert len(runs) == 2
        return runs

    def released(self, tag):
        return {p.name: p.read_bytes() for p in (self.releases / tag).iterdir()} \
            if (self.releases / tag).exists() else None


@pytest.fixture
def forge(tmp_path):
    return Forge(tmp_path)


VERSION = re.search(r"version: '(.*?)'", open(os.path.join(ROOT, "meson.build"),
                                              encoding="utf-8").read())[1]
TAG = "v" + VERSION


def test_a_push_is_tested_and_built_and_releases_nothing(forge):
    assert forge.job("check").ok and all(r.ok for r in forge.packages())
    assert forge.job("release") is None
    assert {p.name for p in forge.artifacts.iterdir()} == {"packages-amd64", "packages-arm64"}


def test_a_tag_is_released_whole(forge):
    assert all(r.ok for r in forge.packages(TAG))
    run = forge.job("release", TAG)
    assert run.ok, run.log
    files = forge.released(TAG)
    debs = {"%s_%s_%s.deb" % (p, VERSION, a) for p in PACKAGES for a in ARCHES}
    assert set(files) == debs | {"SHA256SUMS", "notes"}  # and no draft any more
    summed = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], check=False,
                            cwd=forge.releases / TAG, capture_output=True, text=True)
    assert summed.returncode == 0 and summed.stdout.count(": OK") == len(debs), summed.stdout
    with open(os.path.join(ROOT, "debian", "changelog"), encoding="utf-8") as f:
        says = re.search(r"^  (\* .*)$", f.read(), re.M)[1]
    assert says in files["notes"].decode() and "sha256sum -c" in files["notes"].decode()


@pytest.mark.parametrize("tag, says", [("v9.9.9", "meson.build has the version " + VERSION),
                                       (VERSION + "0", "a release is called v1.2.3"),
                                       (TAG + "-rc1", "a release is called v1.2.3")])
def test_a_tag_that_is_not_the_version_builds_nothing(forge, tag, says):
    for run in forge.packages(tag):
        assert not run.ok and run.ran[-1] == "The tag names this version" and says in run.log
    assert list(forge.artifacts.iterdir()) == []
    assert says in forge.job("release", tag).log and forge.released(tag) is None


def test_the_changelog_has_to_have_it_too(forge):
    forge.change = lambda tree: (tree / "debian/changelog").write_text("paku-ota (0.0.1) unstable\n")
    run = forge.packages(TAG)[0]
    assert not run.ok and "debian/changelog begins with 0.0.1" in run.log


def test_all_packages_or_no_release(forge):
    forge.packages(TAG)
    one = forge.artifacts / "packages-arm64" / ("paku-ota_%s_arm64.deb" % VERSION)
    kept = one.read_bytes()
    one.unlink()
    run = forge.job("release", TAG)
    assert not run.ok and "_arm64.deb is missing" in run.log
    shutil.copy(forge.artifacts / "packages-amd64" / one.name.replace("arm64", "amd64"), one)
    run = forge.job("release", TAG)
    assert not run.ok and "holds paku-ota %s amd64" % VERSION in run.log
    one.write_bytes(kept[:100])
    run = forge.job("release", TAG)
    assert not run.ok and "is no package" in run.log
    assert forge.released(TAG) is None


def test_run_again_finds_its_release(forge):
    forge.packages(TAG)
    assert forge.job("release", TAG).ok
    before = forge.released(TAG)
    again = forge.job("release", TAG)
    assert again.ok and "is released, with these very bytes" in again.log
    forge.packages(TAG, BYTES="another build")
    other = forge.job("release", TAG)
    assert not other.ok and "is released, with other bytes" in other.log
    assert forge.released(TAG) == before


def test_a_release_that_broke_off_is_made_anew(forge):
    forge.packages(TAG)
    (forge.releases / "broken").touch()
    assert not forge.job("release", TAG).ok
    assert set(forge.released(TAG)) == {"draft", "notes"}  # nobody sees it
    (forge.releases / "broken").unlink()
    assert forge.job("release", TAG).ok and "SHA256SUMS" in forge.released(TAG)


def test_rights_limits_and_scripts(forge):
    """Who may write, what waits for what; and each command of the file is one of the tree's."""
    flow = action.read(FLOW)
    assert flow["permissions"] == {"contents": "read"}
    assert [n for n, j in forge.jobs.items() if "permissions" in j] == ["release"]
    assert set(forge.jobs["release"]["needs"]) == set(forge.jobs) - {"release"}
    assert {m["arch"] for m in forge.jobs["packages"]["strategy"]["matrix"]["include"]} == set(ARCHES)
    for name, job in forge.jobs.items():
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            for path in re.findall(r"(?:^|\s)((?:\./|deploy/|tests/)[\w./-]+)", step.get("run", "")):
                real = [path] if not path.endswith("/") else \
                    [path + m["test"] for m in job["strategy"]["matrix"]["include"]]
                assert all(os.access(os.path.join(ROOT, p), os.X_OK) for p in real), real


@pytest.mark.parametrize("args, status, says", [
    (["--arch", "arm64"], 1, "libpq-dev is installed here"),
    (["--arch", "vax"], 2, "Usage: ./package"),
    (["--arch"], 2, "Usage: ./package"),
    (["arm64"], 2, "Usage: ./package"),
])
def test_a_machine_with_libraries_of_its_own_keeps_them(tmp_path, args, status, says):
    """./package touches nothing where it would have to remove something."""
    program(tmp_path / "dpkg", "#!/bin/sh\n[ \"$*\" = --print-architecture ] || touch %s/changed\n"
            "echo amd64\n" % tmp_path)
    program(tmp_path / "dpkg-query", "#!/bin/sh\ncase \"$*\" in *' libpq-dev:amd64') echo installed ;; esac\n")
    program(tmp_path / "apt-get", "#!/bin/sh\ntouch %s/changed\n" % tmp_path)
    done = subprocess.run([os.path.join(ROOT, "package"), *args], check=False, capture_output=True,
                          text=True, timeout=60,
                          env={**os.environ, "PATH": "%s:%s" % (tmp_path, os.environ["PATH"])})
    assert done.returncode == status and says in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "changed").exists()
