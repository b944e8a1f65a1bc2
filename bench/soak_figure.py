# SPDX-License-Identifier: MIT
"""What a soak comes to: the verdict on its samples, and its graphs as one SVG.

Works on the folder alone, so that a run that was killed can be judged and drawn as far as it came.
The limits say what may not creep in a hundred hours; speed is shown and not judged.
"""
import csv
import html
import json
import math
import os
import statistics

# Columns that are metrics of the service; those with _total are counted since its start.
METRICS = {"queue": "paku_ota_commit_queue_length", "requests": "paku_ota_http_requests_total",
           "server_errors": "paku_ota_http_server_errors_total",
           "messages": "paku_ota_mqtt_messages_total",
           "rejected": "paku_ota_mqtt_rejected_total", "waiting": "paku_ota_mqtt_waiting",
           "attempts": "paku_ota_attempts_ended_total", "commits": "paku_ota_commits_total"}
COLUMNS = ("seconds", "anon_mb", "broker_mb", "descriptors", "threads", "cpu_s", "probe_ms",
           "answer_ms", "commit_ms", *METRICS, "events", "database_mb", "log_mb")
MEMORY_MB = 1.0  # that memory may grow by in the second half, as bench/run takes for noise
CACHES_FULL_MB = 32  # of database: SQLite keeps up to 16 MB of it in memory, its readers some more
DESCRIPTORS = 8


def read_json(folder, name):
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def read_samples(folder):
    """A list a column; a last line that a kill cut off is left out."""
    with open(os.path.join(folder, "samples.csv"), newline="", encoding="ascii") as f:
        rows = [r for r in csv.DictReader(f) if None not in r.values()]
    return {c: [float(r[c]) for r in rows] for c in COLUMNS}


def long(seconds):
    return f"{seconds / 60:,.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"


# --- the verdict ---

def slope(x, y):
    """Of the line through all points (least squares)."""
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    below = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / below if below else 0.0


def second_half(samples):
    return next((i for i, t in enumerate(samples["seconds"]) if t >= samples["seconds"][-1] / 2), 0)


def judge_memory(s, asked_s):
    """The comparison at the end reads every device and attempt: that is after the trend."""
    half, end = second_half(s), sum(t <= asked_s for t in s["seconds"])
    t, memory = s["seconds"][half:end], s["anon_mb"][half:end]
    if s["database_mb"][half] < CACHES_FULL_MB or len(t) < 2:
        return None, (f"memory is not judged: the database had {s['database_mb'][half]:.1f} MB at half "
                      f"time, and what is kept of it in memory is full at {CACHES_FULL_MB}")
    grown = slope(t, memory) * (t[-1] - t[0])
    return grown <= MEMORY_MB, (f"in the second half memory grew by {grown:.2f} MB along its trend (at "
                                f"most {MEMORY_MB:.0f}), to {memory[-1]:.1f} MB")


def judge_samples(s, asked_s):
    """What the samples say: (name, whether it held or None if that cannot be told, a sentence)."""
    half = second_half(s)
    yield ("memory", *judge_memory(s, asked_s))
    for name, may in (("descriptors", DESCRIPTORS), ("threads", 0)):
        early = statistics.median(s[name][half // 2:half] or s[name])
        late = statistics.median(s[name][(half + len(s[name])) // 2:])
        yield (name, late - early <= may, f"{early:.0f} {name} in the second quarter, {late:.0f} in "
               f"the last (at most {may} more)")
    yield ("answers", s["server_errors"][-1] == 0, f"{s['requests'][-1]:,.0f} requests, "
           f"{s['server_errors'][-1]:.0f} of them answered with 500 or above")
    yield ("messages", s["rejected"][-1] == 0, f"{s['messages'][-1]:,.0f} messages over MQTT, "
           f"{s['rejected'][-1]:.0f} not understood")
    yield ("queue", s["queue"][-1] == 0, f"{s['queue'][-1]:.0f} commands wait at the end, at the "
           f"most {max(s['queue']):.0f} did")


def judge_fleets(folder):
    for kind in ("mqtt", "http"):
        told = read_json(folder, f"fleet-{kind}.json")
        if not told:
            yield f"fleet {kind}", False, f"the fleet over {kind.upper()} told nothing"
            continue
        ends = ", ".join(f"{n:,} {how}" for how, n in sorted(told["attempts"].items()) if n)
        yield (f"fleet {kind}", told["consistent"] is True,
               f"over {kind.upper()} {told['differences']:,} differences between what devices saw and what "
               f"is recorded ({ends})")


def judge(folder):
    s, asked = read_samples(folder), read_json(folder, "run.json")
    ended = read_json(folder, "ended.json")
    yield ("whole", ended is not None and not ended["failed"],
           f"ran {long(s['seconds'][-1])} of {long(asked['seconds'])}" +
           ("; it was broken off" if ended is None else f"; {ended['failed']}" if ended["failed"]
            else ", and ended as it should"))
    if ended is not None and not ended["failed"]:
        yield ("looks", ended["missed"] == 0,
               f"{ended['missed']} times the service did not answer the script within 30 s")
    yield from judge_fleets(folder)
    yield from judge_samples(s, asked["seconds"])


def tell(s):
    """What is shown and not judged."""
    half = second_half(s)
    grown = [(s["database_mb"][b] - s["database_mb"][a], s["events"][b] - s["events"][a])
             for a, b in ((0, half), (half, -1))]
    per = [mb * 1e6 / n if n else 0 for mb, n in grown]
    return (f"{s['attempts'][-1]:,.0f} attempts, {s['events'][-1]:,.0f} events; bytes of database for "
            f"an event: {per[0]:,.0f} in the first half, {per[1]:,.0f} in the second; a check-in of "
            f"the probe took {statistics.median(s['probe_ms']):.1f} ms, and "
            f"{sorted(s['probe_ms'])[int(len(s['probe_ms']) * 0.99)]:.1f} ms at the 99th percentile; "
            f"{s['cpu_s'][-1] / s['seconds'][-1] * 100:.1f} % of a processor")


# --- the picture ---

WIDTH, LEFT, GAP, PLOT_W, PLOT_H, TOP, STEP = 960, 64, 56, 388, 104, 104, 168
STYLE = """<style>
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#57606a}
.h{font-size:19px;font-weight:600;fill:#1f2328}.t{font-size:13px;font-weight:600;fill:#1f2328}
.bg{fill:#fff}.grid{stroke:#d8dee4}.bad{fill:#d1242f}
.a{fill:none;stroke:#0969da;stroke-width:1.3}.a-t{fill:#0969da}
.b{fill:none;stroke:#bc4c00;stroke-width:1.3}.b-t{fill:#bc4c00}
@media (prefers-color-scheme:dark){text{fill:#9198a1}.h,.t{fill:#f0f6fc}.bg{fill:#0d1117}
.grid{stroke:#262c36}.bad{fill:#f85149}.a{stroke:#58a6ff}.a-t{fill:#58a6ff}.b{stroke:#f0883e}.b-t{fill:#f0883e}}
</style>"""


def rate(samples, name, factor=1.0):
    """What a counter rose by in a second, a value a sample."""
    t, v = samples["seconds"], samples[name]
    return [0.0] + [max(0.0, (v[i] - v[i - 1]) / max(t[i] - t[i - 1], 1e-3)) * factor
                    for i in range(1, len(v))]


def panels(s):
    """(title, [(what, values), ...]) in the order of reading."""
    return [
        ("memory of its own, MB", [("service", s["anon_mb"]), ("broker", s["broker_mb"])]),
        ("open descriptors and threads", [("descriptors", s["descriptors"]),
                                          ("threads", s["threads"])]),
        ("a check-in of the probe, ms", [("probe", s["probe_ms"])]),
        ("99 of 100 are below, ms", [("answers", s["answer_ms"]), ("commits", s["commit_ms"])]),
        ("waiting", [("for the disk", s["queue"]), ("to be told over MQTT", s["waiting"])]),
        ("in a second", [("requests", rate(s, "requests")), ("messages", rate(s, "messages"))]),
        ("since the start", [("events", s["events"]), ("attempts ended", s["attempts"])]),
        ("database, MB", [("file", s["database_mb"]), ("write-ahead log", s["log_mb"])]),
        ("processor, % of one", [("service", rate(s, "cpu_s", 100))]),
        ("transactions in a second", [("commits", rate(s, "commits"))]),
    ]


def nice(most):
    """A round number at or above MOST, for the top of an axis."""
    if most <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(most))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= most * 0.999)


def number(x):
    return f"{x:,.0f}" if x >= 100 or x == int(x) else f"{x:.1f}" if x >= 1 else f"{x:.2g}"


def thin(x, y):
    """Least and largest of each pixel: what is rare and large stays to be seen."""
    out, bins = [], {}
    for a, b in zip(x, y):
        low, high = bins.get(int(a), (b, b))
        bins[int(a)] = (min(low, b), max(high, b))
    for a in sorted(bins):
        out += [(a, bins[a][0])] + ([(a, bins[a][1])] if bins[a][0] != bins[a][1] else [])
    return out


def panel(title, series, seconds, x0, y0):
    end = seconds[-1] or 1
    unit, span = (60, "min") if end < 2 * 3600 else (3600, "h")
    top = nice(max(max(v) for _, v in series))
    out = [f'<text class="t" x="{x0}" y="{y0 - 10}">{html.escape(title)}</text>']
    at = x0 + PLOT_W
    for style, (what, values) in reversed(list(zip("ab", series))):
        text = f"{what} {number(values[-1])}"
        out.append(f'<text class="{style}-t" x="{at}" y="{y0 - 10}" text-anchor="end">{html.escape(text)}</text>')
        at -= 7 * len(text) + 10
    for part in (0, 0.5, 1):
        y = y0 + PLOT_H * (1 - part)
        out.append(f'<line class="grid" x1="{x0}" x2="{x0 + PLOT_W}" y1="{y}" y2="{y}"/>'
                   f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{number(top * part)}</text>')
    for part in (0, 0.25, 0.5, 0.75, 1):
        label = number(round(end / unit * part, 1)) + (f" {span}" if part == 1 else "")
        out.append(f'<text x="{x0 + PLOT_W * part}" y="{y0 + PLOT_H + 16}" text-anchor="middle">'
                   f'{label}</text>')
    for style, (_, values) in zip("ab", series):
        points = thin([t / end * PLOT_W for t in seconds], values)
        line = " ".join(f"{x0 + x},{y0 + PLOT_H * (1 - min(v / top, 1)):.1f}" for x, v in points)
        out.append(f'<polyline class="{style}" points="{line}"/>')
    return out


def draw(samples, title, sentences):
    """SENTENCES: (whether it is bad, text), above the graphs."""
    some = panels(samples)
    base = TOP + 18 * len(sentences)
    height = base + STEP * ((len(some) + 1) // 2) - 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
           f'viewBox="0 0 {WIDTH} {height}" role="img">', STYLE,
           f'<rect class="bg" width="{WIDTH}" height="{height}"/>',
           f'<text class="h" x="24" y="36">{html.escape(title)}</text>']
    for i, (bad, text) in enumerate(sentences):
        out.append(f'<text{" class=" + chr(34) + "bad" + chr(34) if bad else ""} x="24" '
                   f'y="{60 + 18 * i}">{html.escape(text)}</text>')
    for i, (name, series) in enumerate(some):
        out += panel(name, series, samples["seconds"],
                     LEFT + (PLOT_W + GAP + 20) * (i % 2), base + STEP * (i // 2))
    return "\n".join([*out, "</svg>", ""])


def report(folder):
    """Judges and draws what lies in FOLDER; 0 when all held that could be told."""
    verdicts, samples = list(judge(folder)), read_samples(folder)
    asked = read_json(folder, "run.json")
    held = all(ok is not False for _, ok, _ in verdicts)
    title = (f"Soak of {long(samples['seconds'][-1])}, {asked['devices']:,} devices over MQTT and as "
             f"many over HTTP: {'it held' if held else 'it did NOT hold'}")
    with open(os.path.join(folder, "verdict.json"), "w", encoding="utf-8") as f:
        json.dump({"held": held, "told": tell(samples), "verdicts": [
            {"name": n, "held": ok, "says": says} for n, ok, says in verdicts]}, f, indent=1)
    with open(os.path.join(folder, "soak.svg"), "w", encoding="utf-8") as f:
        f.write(draw(samples, title, [(ok is False, says) for _, ok, says in verdicts]))
    print(title)
    for name, ok, says in verdicts:
        print(f"  {'held' if ok else '-   ' if ok is None else 'NOT '}  {name}: {says}")
    print(f"  told  {tell(samples)}\n  {folder}/soak.svg")
    return 0 if held else 1
