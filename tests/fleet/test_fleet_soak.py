# SPDX-License-Identifier: MIT
"""bench/soak: a real run in short, and its verdict on samples that are made here."""
import csv
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from service import BUILD, ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))
import soak_figure  # noqa: E402

SOAK = os.path.join(ROOT, "bench", "soak")
SVG = "{http://www.w3.org/2000/svg}"


def soak(*args):
    return subprocess.run(["/usr/bin/python3", SOAK, *map(str, args)], capture_output=True, text=True,
                          timeout=400, check=False)


def verdicts(folder):
    with open(folder / "verdict.json", encoding="utf-8") as f:
        told = json.load(f)
    return told, {v["name"]: v["held"] for v in told["verdicts"]}


def test_a_short_run_and_what_it_leaves(tmp_path):
    folder = tmp_path / "soak"
    run = soak("--minutes", 0.2, "--devices", 20, "--build", BUILD, "--dir", folder)
    told, held = verdicts(folder)
    assert held["memory"] is None  # caches fill for hours
    # Descriptors settle in hours too.
    for name in ("whole", "fleet mqtt", "fleet http", "answers", "messages", "queue"):
        assert held[name], run.stdout + run.stderr
    assert run.returncode == (0 if told["held"] else 1)
    samples = soak_figure.read_samples(folder)
    assert samples["seconds"] == sorted(samples["seconds"]) and len(samples["seconds"]) >= 3
    assert samples["attempts"][-1] >= 40 and samples["events"][-1] > 40  # a release at least for each
    assert samples["anon_mb"][-1] > 1 and samples["broker_mb"][-1] > 0
    picture = ET.parse(folder / "soak.svg").getroot()
    assert len(picture.findall(SVG + "polyline")) == \
        sum(len(series) for _, series in soak_figure.panels(samples))

    # The same folder, had the run been killed while it wrote.
    (folder / "ended.json").unlink()
    whole = (folder / "samples.csv").read_text()
    (folder / "samples.csv").write_text(whole[:-20])
    again = soak("--draw", folder)
    assert again.returncode == 1 and "it was broken off" in again.stdout, again.stdout + again.stderr
    assert len(soak_figure.read_samples(folder)["seconds"]) == len(samples["seconds"]) - 1

    assert "is not empty" in soak("--minutes", 1, "--dir", folder).stderr


def made(**columns):
    """100 hours, a sample each: nothing moves but the columns given, which are functions of the hour."""
    still = dict.fromkeys(soak_figure.COLUMNS, lambda hour: 10)
    still.update(database_mb=lambda hour: 30 + hour, server_errors=lambda hour: 0, rejected=lambda hour: 0, queue=lambda hour: 0)
    still.update(columns, seconds=lambda hour: hour * 3600)
    return {name: [float(f(hour)) for hour in range(101)] for name, f in still.items()}


@pytest.mark.parametrize("columns, fails", [
    ({}, set()),
    ({"anon_mb": lambda h: 10 + min(h, 20) + h % 2}, set()),  # warms up, and goes up and down
    ({"anon_mb": lambda h: 10 + 0.03 * h + h % 3}, {"memory"}),  # 1.5 MB in 50 hours, under noise
    ({"anon_mb": lambda h: 10 + h, "database_mb": lambda h: h / 2}, set()),  # caches
    ({"anon_mb": lambda h: 10 + 90 * (h > 98)}, set()),  # the comparison
    ({"descriptors": lambda h: 20 + h / 4}, {"descriptors"}),
    ({"descriptors": lambda h: 20 + h % 7}, set()),
    ({"threads": lambda h: 10 + (h > 60)}, {"threads"}),
    ({"server_errors": lambda h: h > 50}, {"answers"}),
    ({"rejected": lambda h: h > 99}, {"messages"}),
    ({"queue": lambda h: 500 * (h == 100)}, {"queue"}),
    ({"queue": lambda h: 500 * (h == 50)}, set()),
])
def test_what_creeps_is_seen(columns, fails):
    found = soak_figure.judge_samples(made(**columns), 98 * 3600)
    assert {name for name, ok, _ in found if ok is False} == fails


def write_run(folder, samples, failed=None, missed=0, fleets=("mqtt", "http"), **fleet):
    with open(folder / "samples.csv", "w", newline="", encoding="ascii") as f:
        rows = csv.writer(f)
        rows.writerow(soak_figure.COLUMNS)
        rows.writerows(zip(*(samples[c] for c in soak_figure.COLUMNS)))
    (folder / "run.json").write_text('{"seconds": 360000, "devices": 5}')
    (folder / "ended.json").write_text(json.dumps({"failed": failed, "missed": missed}))
    for kind in fleets:
        (folder / ("fleet-%s.json" % kind)).write_text(json.dumps(
            {"consistent": True, "differences": 0, "attempts": {"success": 1}, **fleet}))


@pytest.mark.parametrize("run, fails", [
    ({}, set()),
    ({"failed": "the service ended (-9)"}, {"whole"}),
    ({"missed": 1}, {"looks"}),
    ({"fleets": ("mqtt",)}, {"fleet http"}),
    ({"consistent": False, "differences": 3}, {"fleet mqtt", "fleet http"}),
])
def test_what_the_fleets_saw_counts(tmp_path, capsys, run, fails):
    write_run(tmp_path, made(), **run)
    assert soak_figure.report(str(tmp_path)) == (1 if fails else 0)
    told, held = verdicts(tmp_path)
    assert {n for n, ok in held.items() if ok is False} == fails and told["held"] is not bool(fails)
    assert ("did NOT hold" in (tmp_path / "soak.svg").read_text()) is bool(fails)
    capsys.readouterr()
