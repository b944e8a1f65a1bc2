# SPDX-License-Identifier: MIT
"""Time zones and maintenance windows against Python's zoneinfo, which reads the same files with other
code and knows nothing of ours."""
import os
import random
import subprocess
import zoneinfo
from datetime import datetime, timezone

from service import BUILD

DRIVER = os.path.join(BUILD, "tests", "integration", "window_driver")
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
FIRST, LAST = 0, 4102444800  # 1970 to 2100
STEP = 900  # no window or offset below has a finer grain (from 1973 on)
# Both halves of the earth, half hours and quarters, changes at midnight, none at all, and odd ones.
PLACES = ["Europe/Helsinki", "Europe/Dublin", "America/New_York", "America/St_Johns", "America/Havana",
          "America/Santiago", "America/Sao_Paulo", "America/Scoresbysund", "Australia/Lord_Howe",
          "Australia/Adelaide", "Pacific/Chatham", "Pacific/Apia", "Asia/Kathmandu", "Asia/Kolkata",
          "Asia/Tehran", "Asia/Gaza", "Africa/Casablanca", "Africa/Cairo", "Antarctica/Troll", "UTC"]


def ask(*lines):
    run = subprocess.run([DRIVER], input="".join(line + "\n" for line in lines), capture_output=True,
                         text=True, check=True, timeout=120)
    answers = run.stdout.splitlines()
    assert len(answers) == len(lines)
    return answers


def offset(zone, t):
    return int(datetime.fromtimestamp(t, zone).utcoffset().total_seconds())


def changes(zone):
    """The instants at which the offset changes, found by halving."""
    month, found = 28 * 86400, []
    for begin in range(FIRST, LAST, month):
        low, high = begin, begin + month
        if offset(zone, low) == offset(zone, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(zone, middle) == offset(zone, low) else (low, middle)
        found.append(high)
    return found


def compare(names, instants):
    lines = [f"offset {n} {' '.join(map(str, instants[n]))}" for n in names]
    for name, answer in zip(names, ask(*lines)):
        zone = zoneinfo.ZoneInfo(name)
        told = list(map(int, answer.split()))
        wrong = [(t, have, offset(zone, t)) for t, have in zip(instants[name], told)
                 if have != offset(zone, t)]
        assert len(told) == len(instants[name]) and not wrong, (name, wrong[:5])


def test_offsets_of_every_zone():
    chance = random.Random(1)
    names = sorted(zoneinfo.available_timezones())
    assert len(names) > 400
    compare(names, {n: [chance.randrange(FIRST, LAST) for _ in range(100)] for n in names})


def test_offsets_around_every_change():
    instants = {}
    for name in PLACES:
        at = changes(zoneinfo.ZoneInfo(name))
        instants[name] = [t + d for t in at or [0] for d in (-1, 0, 1)]
    assert sum(map(len, instants.values())) > 9000
    compare(PLACES, instants)


# --- windows: what a clock on the wall shows, in other words ---


def is_open(parts, zone, t):
    wall = datetime.fromtimestamp(t, zone)
    minute, today = 60 * wall.hour + wall.minute, wall.weekday()
    for days, begin, end in parts:
        if begin < end and today in days and begin <= minute < end:
            return True
        if begin > end and ((today in days and minute >= begin)
                            or ((today - 1) % 7 in days and minute < end)):
            return True
    return False


def next_change(parts, zone, t):
    now = is_open(parts, zone, t)
    for later in range(t + STEP, t + 9 * 86400, STEP):
        if is_open(parts, zone, later) != now:
            return str(later)
    return "never"


def some_part(chance):
    days = sorted(chance.sample(range(7), chance.randrange(1, 8)))
    begin = chance.randrange(0, 96)
    end = chance.choice([e for e in range(0, 97) if e != begin])
    text = "daily" if len(days) == 7 else ",".join(DAYS[d] for d in days)
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):
        text = f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
    clock = "{:02d}:{:02d}-{:02d}:{:02d}".format(*divmod(15 * begin, 60), *divmod(15 * end, 60))
    return f"{text} {clock}", (days, 15 * begin, 15 * end)


def test_windows_at_any_time():
    chance = random.Random(2)
    near = {n: [t for t in changes(zoneinfo.ZoneInfo(n)) if t > 3 * 366 * 86400] for n in PLACES}
    cases = []
    for _ in range(600):
        name = chance.choice(PLACES)
        t = chance.randrange(3 * 366 * 86400, LAST)
        if near[name] and chance.random() < 0.7:  # where clocks change within a day or two
            t = chance.choice(near[name]) + chance.randrange(-2 * 86400, 86400)
        texts, parts = zip(*(some_part(chance) for _ in range(chance.randrange(1, 4))))
        cases.append((t - t % STEP, name, "; ".join(texts), parts))
    answers = ask(*(f"window {t} {text} {name}" for t, name, text, _ in cases))
    for (t, name, text, parts), told in zip(cases, answers):
        zone = zoneinfo.ZoneInfo(name)
        want = f"{int(is_open(parts, zone, t))} {next_change(parts, zone, t)}"
        assert told == want, (t, datetime.fromtimestamp(t, zone), text, name)


def utc(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())


def opens_and_closes(text, begin, hours):
    """The changes within HOURS after BEGIN, as people read them."""
    t, end, seen = utc(begin), utc(begin) + 3600 * hours, []
    while True:
        told = ask(f"window {t} {text}")[0].split()
        if told[1] == "never" or int(told[1]) >= end:
            return seen
        t = int(told[1])
        seen.append(datetime.fromtimestamp(t, timezone.utc).strftime("%H:%M"))


def test_an_hour_that_no_clock_shows():
    # Helsinki, 2027-03-28: 03:00 becomes 04:00, at 01:00 UTC.
    day = "2027-03-27 22:00"
    assert opens_and_closes("Sun 03:00-04:00 Europe/Helsinki", day, 24) == []
    assert opens_and_closes("Sun 03:30-04:30 Europe/Helsinki", day, 24) == ["01:00", "01:30"]
    assert opens_and_closes("Sun 02:00-05:00 Europe/Helsinki", day, 24) == ["00:00", "02:00"]
    assert opens_and_closes("Sat 22:00-03:30 Europe/Helsinki", "2027-03-27 12:00", 24) == ["20:00", "01:00"]


def test_an_hour_that_comes_twice():
    # Helsinki, 2027-10-31: 04:00 becomes 03:00, at 01:00 UTC.
    day = "2027-10-30 20:00"
    assert opens_and_closes("Sun 03:00-04:00 Europe/Helsinki", day, 24) == ["00:00", "02:00"]
    assert opens_and_closes("Sun 03:15-03:45 Europe/Helsinki", day, 24) == ["00:15", "00:45", "01:15", "01:45"]
    assert opens_and_closes("Sun 02:00-05:00 Europe/Helsinki", day, 24) == ["23:00", "03:00"]


def test_the_other_half_of_the_earth():
    # Lord Howe moves by half an hour: 2027-04-04 02:00 becomes 01:30, at 15:00 UTC the day before.
    assert opens_and_closes("Sun 01:30-02:00 Australia/Lord_Howe", "2027-04-03 12:00", 12) == ["14:30", "15:30"]
    # ... and 2027-10-03 02:00 becomes 02:30, at 15:30 UTC the day before.
    assert opens_and_closes("Sun 02:00-02:30 Australia/Lord_Howe", "2027-10-02 12:00", 12) == []
    # Havana has midnight twice on 2027-11-07, and Kathmandu is 5:45 ahead.
    assert opens_and_closes("Sun 00:00-01:00 America/Havana", "2027-11-06 20:00", 24) == ["04:00", "06:00"]
    assert opens_and_closes("Mon 01:00-05:00 Asia/Kathmandu", "2027-01-03 12:00", 24) == ["19:15", "23:15"]


def test_what_is_always_open():
    for text in ("daily 00:00-24:00 Europe/Helsinki", "Mon-Sun 12:00-24:00; daily 00:00-12:00 UTC",
                 "Wed-Tue 06:00-18:00; daily 18:00-06:00 Europe/Dublin"):
        assert ask(f"window 1800000000 {text}", f"sentence 1800000000 {text}") == ["1 never", "is always open"]


def test_what_people_read():
    t = utc("2027-01-02 12:00")  # a Saturday
    text = "Mon-Fri 01:00-05:00 Europe/Helsinki"
    assert ask(f"sentence {t} {text}", f"sentence {utc('2027-01-04 00:00')} {text}") == [
        "opens Mon 01:00 Europe/Helsinki (in 35 h)", "is open until Mon 05:00 Europe/Helsinki (in 3 h)"]


def test_what_is_refused():
    refused = {
        "Mon-Fri 01:00-05:00 Europe/Helsinky": "there is no time zone 'Europe/Helsinky'",
        "Mon-Fri 01:00-05:00 zone.tab": "'zone.tab' is no name of a time zone",
        "Mon-Fri 01:00-05:00 Europe": "there is no time zone 'Europe'",
        "Mon-Fri 01:00-05:00 leapseconds": "there is no time zone 'leapseconds'",
        "Mon-Fri 01:00-05:00 ../../etc/passwd": "'../../etc/passwd' is no name of a time zone",
        "Mon-Fri 01:00-05:00 right/UTC": "it counts leap seconds",
        "Mon-Fri 05:00-05:00 UTC": "never opens: 05:00-05:00 has no length",
        "Mon-Fri 24:00-05:00 UTC": "must have times such as",
        "Mon-Fri 25:00-05:00 UTC": "must have times such as",
        "Mon-Fri 01:60-05:00 UTC": "must have times such as",
        "Mon-Fri 01:00 05:00 UTC": "must have times such as",
        "Mon-Fri 0100-0500 UTC": "must have times such as",
        "Mon-Fri": "needs times after its days",
        "Mon-Fri 01:00-05:00": "needs a time zone at its end",
        "01:00-05:00 UTC": "must begin with its days",
        "Mon- 01:00-05:00 UTC": "must begin with its days",
        "Mon-Wed-Fri 01:00-05:00 UTC": "must begin with its days",
        "Mo,Di 01:00-05:00 UTC": "must begin with its days",
        "; daily 01:00-05:00 UTC": "must begin with its days",
        "daily 01:00-05:00 UTC;": "must name one time zone, at its end",
        "daily 01:00-05:00;": "must begin with its days",
        "Mon 01:00-05:00 UTC; Tue 01:00-02:00 UTC": "must name one time zone, at its end",
        "daily 01:00-05:00 Helsinki Finland": "has too many words",
        "daily 01:00-05:00 " + "x" * 65: "is too long",
        ";".join(["daily 01:00-02:00"] * 9) + " UTC": "has more than 8 parts",
        "daily 01:00-02:00 " * 20: "is longer than 200 characters",
    }
    answers = ask(*(f"window 1800000000 {text}" for text in refused))
    for (text, want), told in zip(refused.items(), answers):
        assert told.startswith("error: ") and want in told, (text, told)
