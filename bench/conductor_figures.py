# SPDX-License-Identifier: MIT
"""The figures of rollouts that walk by themselves: the gate of src/core, and the whole, on simulated walks."""
import json
import os
import subprocess
import time

from figures import DEVICES, Row
from machine import Failed, Service, program, running

WALKS = 1000
HOW = ("through the gate of src/core; a failure is known after 60 s, a proof after 660 s, silence "
       "after 1,800 s")


def simulate(walks, *names):
    """Each row in a process of its own, by name."""
    running = [subprocess.Popen([program("bench-gate-sim"), "--json", str(walks), name],
                                stdout=subprocess.PIPE, text=True) for name in names]
    rows = {}
    for name, process in zip(names, running):
        out, _ = process.communicate()
        if process.returncode != 0:
            raise Failed(f"bench-gate-sim {name} ended with {process.returncode}")
        rows[name] = json.loads(out)
    return rows


def walks_of(setting):
    return WALKS // 5 if setting.quick else WALKS


def refuse_if_through(rows):
    through = [r["name"] for r in rows.values() if r["stopped"] != r["runs"]]
    if through:
        raise Failed(f"walks of {', '.join(through)} were not stopped")


def bricks(setting):
    walks, rows = walks_of(setting), {}
    for fleet in ("100", "10k", "1m"):
        rows.update(simulate(walks, f"bricks-{fleet}", f"bricks-{fleet}-silently"))
    refuse_if_through(rows)
    yield Row("conductor-bricks", "devices harmed by a release that bricks all", "devices in the worst walk",
              [max(r["harmed_most"] for r in rows.values())], goal=3, aim=2, kind="at most",
              meaning="what the worst release costs, loudly or silently, at any size of fleet",
              notes=[f"{walks:,} walks each of fleets of 100, 10,000 and 1,000,000, {HOW}"])


def variant(setting):
    walks = walks_of(setting)
    rows = simulate(walks, "variant-bricks", "variant-bricks-silently")
    refuse_if_through(rows)
    held = min(100 * r["held"] / r["runs"] for r in rows.values())
    yield Row("conductor-variant", "devices harmed by one that bricks one variant of ten",
              "devices in the worst walk", [max(r["harmed_most"] for r in rows.values())], goal=4,
              kind="at most", meaning="what a fault of one hardware costs; the others go on",
              notes=[f"{walks:,} walks of 10,000 devices, {HOW}; 0.5 % of the others fail; that "
                     f"variant alone is held back in {held:.0f} % at least, else all"])


def shares(setting):
    walks = 300
    for percent, goal in ((50, 3), (20, 4), (10, 5), (5, 9)):
        rows = simulate(walks, f"bad-{percent}")
        refuse_if_through(rows)
        r = rows[f"bad-{percent}"]
        yield Row(f"conductor-bad-{percent}", f"devices harmed by one that fails {percent} %",
                  "devices, the median", [r["harmed_median"]], goal=goal, kind="at most",
                  meaning="what is lost before it is stopped",
                  notes=[f"{walks} walks of 10,000 devices, {HOW}; 95 of a hundred walks harm "
                         f"{r['harmed_p95']} at most, the worst {r['harmed_most']}"])


def false_halts(setting):
    walks = walks_of(setting)
    for fleet, size in ("", "10,000"), ("-1m", "1,000,000"):
        if fleet and setting.quick:
            continue
        rows = simulate(walks, f"bad-1{fleet}", f"bad-0.5{fleet}")
        for percent, goal in ("1", 0.8), ("0.5", 0.1):
            r = rows[f"bad-{percent}{fleet}"]
            yield Row(f"conductor-false-halts-{percent}{fleet}",
                      f"halts of a release that fails {percent} %, {size} devices", "% of walks",
                      [100 * r["stopped"] / r["runs"]], goal=goal, kind="at most",
                      meaning="how often a good release is stopped for nothing",
                      notes=[f"{walks:,} walks, {HOW}"])


def through(setting):
    walks = 20 if setting.quick else 100
    rows = simulate(walks, "bad-0.5", "good-100k")
    yield Row("conductor-through", "a good release through 10,000 devices", "h",
              [rows["bad-0.5"]["through_s"] / 3600], goal=5.5, kind="at most",
              meaning="what the gate costs in time: 5.0 h, and a tenth",
              notes=[f"the median of {walks} walks, 0.5 % failing, max_unproven 500, {HOW}"])
    yield Row("conductor-through-100k", "a good release through 100,000 devices",
              "times the time of 200 proofs", [rows["good-100k"]["through_s"] / (200 * 660)],
              goal=1.1, kind="at most", meaning="how near it comes to its bound of 500 at a time",
              notes=[f"the median of {walks} walks, 0.1 % failing, max_unproven 500, {HOW}"])


def scheduled(pid, name):
    """Seconds that the thread of that name was on a processor."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as f:
            if f.read().strip() != name:
                continue
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9
    raise Failed(f"there is no thread {name}")


def tick(setting):
    """What it costs when nothing is due: it ticks each second, by the bench's 20 rollouts."""
    devices, windows, seconds = (DEVICES, 2, 5) if setting.quick else (1_000_000, 6, 10)
    ran = []
    with running(Service(setting.fleets.folder_with("tick", devices, "canary"))) as service:
        time.sleep(5)
        for _ in range(windows + 1):
            ran.append(scheduled(service.process.pid, "conductor"))
            time.sleep(seconds)
    yield Row("conductor-tick", f"a tick of the conductor, {devices:,} devices, 20 rollouts, nothing due", "ms",
              [1000 * (b - a) / seconds for a, b in zip(ran, ran[1:])], goal=5, kind="at most",
              meaning="what walking rollouts cost while nothing happens",
              notes=[f"time of its thread on a processor for each second, in windows of {seconds} s"])


def told(*command):
    """What it says as JSON, a line each; its progress goes to our stderr."""
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise Failed(f"{os.path.basename(command[0])} ended with {run.returncode}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def outage(setting):
    walks = 10 if setting.quick else 100
    rows = told(program("bench-outage-sim"), "--json", str(walks))
    through = [r["name"] for r in rows if r["halted"] + r["completed"] != r["runs"]]
    if through:
        raise Failed(f"walks of {', '.join(through)} came to no end")
    # Where half of the sites are there, nobody that is on trial may be missing.
    not_still = [r["name"] for r in rows if not r["name"].startswith("sites")
                 and r["runs"] != (r["told_nobody"] if r["name"] == "broker" else r["paused"])]
    if not_still:
        raise Failed(f"walks of {', '.join(not_still)} did not pause")
    paused = ", ".join(f"{r['paused']} of {r['name']}" for r in rows if r["name"] != "broker")
    yield Row("conductor-outage", "halts of a good release by an outage of six hours in the middle of it",
              f"of {sum(r['runs'] for r in rows):,} walks", [sum(r["halted"] for r in rows)], goal=0, kind="at most",
              meaning="what an outage of the broker, of the uplink, or of half of the sites, is taken for",
              notes=[f"{walks} walks of {rows[0]['devices']:,} devices each of {', '.join(r['name'] for r in rows)}; "
                     f"paused were {paused}; without a broker nobody was told; "
                     f"{sum(r['silent'] for r in rows)} devices were counted as silent"])


def year(setting):
    devices = 10_000 if setting.quick else 1_000_000
    r = told(program("bench-year-sim"), "--json", str(devices))[0]
    if r["rollouts"] != 200 or r["newest"] < 0.99 * r["devices"]:
        raise Failed(f"{r['rollouts']} rollouts were made, and {r['newest']:,} devices run the newest good release")
    how = (f"{r['completed']} of 200 rollouts were completed and {r['halted']} halted; {r['updates']:,} updates in "
           f"{r['commands']:,} commands; the store keeps nothing")
    # Their goals are those of a million.
    yield Row("conductor-year", f"a year of {devices:,} devices, 50 releases, 200 rollouts", "s", [r["wall_s"]],
              goal=None if setting.quick else 600, kind="at most", meaning="what a year costs in time",
              notes=[f"{r['cpu_s']:.0f} s of a processor, of all threads; {how}"])
    yield Row("conductor-year-memory", "its resident memory at the most, the simulation's own part included", "MB",
              [r["peak_mb"]], goal=None if setting.quick else 500, kind="at most",
              meaning="whether what has ended is given back",
              notes=[f"{r['fleet_mb']:.0f} MB when all devices were there, none of which had met a release; what is "
                     f"older than {r['keep_days']} days is given up"])


FIGURES = {"conductor-tick": tick, "conductor-bricks": bricks, "conductor-variant": variant, "conductor-bad": shares,
           "conductor-false-halts": false_halts, "conductor-through": through,
           "conductor-outage": outage, "conductor-year": year}
