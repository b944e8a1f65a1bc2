# SPDX-License-Identifier: MIT
"""Walks that are cut off: the service is killed at random moments of a rollout, and afterwards the
rollout's state, stage, evidence and exposure are what its events say, computed here from ota_events
alone.  PAKU_SEED says which dice are thrown (printed), PAKU_FAULT_ROUNDS how many walks (4)."""
import os
import random
import threading
import time

import pytest
import requests

import images
from test_conductor import events, lead, show
from test_gate import exactly

NEW = "2.0.0"
ROUNDS = int(os.environ.get("PAKU_FAULT_ROUNDS", "4"))
SEED = int(os.environ.get("PAKU_SEED", random.SystemRandom().randrange(1 << 30)))
STAGES = [{"percent": 30, "min_duration_s": 60, "min_proven": 2},
          {"percent": 60, "min_duration_s": 60, "min_proven": 4, "approve": True}, {"percent": 100}]
GUARD = {"prove_s": 60, "initial_unproven": 3, "max_unproven": 20}
SUSPECTS = ("0.05", "0.1", "0.2", "0.5", "0.95")


FAILED = ("device_failed", "device_silent")
HALT_AT = 125


def evidence(exposures):
    """E / 2, and whether it halts: in the order of exposure up to the first that is open, or run ahead to the last
    failure with the open ones taken as proven, whichever says more."""
    order = [exposures[n] for n in sorted(exposures) if exposures[n] != "device_given_back"]
    entered = order.index(None) if None in order else len(order)
    last = max((i for i, k in enumerate(order, 1) if k in FAILED), default=0)
    line = "".join("F" if k in FAILED else "P" for k in order[:max(entered, last)])
    most = at = 0.5
    for i, (outcome, (e, _)) in enumerate(zip(line, exactly("0.01", SUSPECTS, line)), 1):
        at = float(e) / 2
        if outcome == "F" and at >= HALT_AT:
            return at, True
        most = at if i == entered else most
    return max(most, at), False


def rebuilt(rows):
    """What a rollout's events, in their order, say of it."""
    made = rows[0]
    assert made["event_type"] == "rollout_created"
    r = {"state": made["event_data"]["state"], "stage": 1, "approved": False}
    exposures, halted, e_now = {}, False, (0.5, False)
    for e in rows:
        kind, data = e["event_type"], e["event_data"] or {}
        if "after" in data:
            assert data["before"] == {k: r[k] for k in data["before"]}, "a step from elsewhere"
            r.update(data["after"])
        if kind == "device_exposed":
            exposures[data["exposure"]] = None
        elif kind in ("device_proven", "device_failed", "device_silent", "device_given_back"):
            assert exposures[data["exposure"]] is None, "two outcomes of one exposure"
            exposures[data["exposure"]] = kind
            e_now = e_now if e_now[1] else evidence(exposures)  # for good
        assert not (halted and kind == "update_offered"), "offered after the halt"
        halted = halted or kind == "rollout_halted"
    kinds = list(exposures.values())
    r.update(proven=kinds.count("device_proven"),
             failed=sum(k in FAILED for k in kinds),
             unresolved=kinds.count(None) + held(exposures), e=e_now[0])
    return r


def held(exposures):
    """A failed one keeps its place until a device that came after it has proven the release."""
    proven = max((n for n, k in exposures.items() if k == "device_proven"), default=0)
    return sum(k in FAILED and n > proven
               for n, k in exposures.items())


def compare(service, number):
    want, have = rebuilt(events(service, number)), show(service, number)
    assert have["state"] == want["state"]
    assert have["stage"]["index"] == want["stage"]
    assert have["stage"]["approved"] == want["approved"]
    assert have["stage"]["percent"] == STAGES[want["stage"] - 1]["percent"]
    if have["evidence"] is None:  # nobody met the release yet
        assert want["proven"] == want["failed"] == want["unresolved"] == 0
        return want
    told = have["evidence"]
    assert {k: told[k] for k in ("proven", "failed")} == \
        {k: want[k] for k in ("proven", "failed")}
    assert have["exposure"]["unresolved"] == want["unresolved"]
    # Half of the evidence is the release's, half its variants': src/core/gate.h.
    assert told["e"] == pytest.approx(want["e"], rel=1e-3)
    assert told["halted"] == (want["state"] == "halted")
    return want


class Devices:
    """Some succeed, some fail; each tells what it did until the service has taken it."""

    def __init__(self, service, dice, bad):
        self.service, self.dice = service, dice
        self.runs = {"dev-%02d" % i: "1.0.0" for i in range(16)}
        self.bad = {n for n in self.runs if dice.random() < bad}

    def look_in(self):
        for name in self.dice.sample(sorted(self.runs), 16):
            try:
                self.one(name)
            except requests.ConnectionError:
                return  # the service is gone; the next time goes on where it was

    def one(self, name):
        answer = self.service.check(name, self.runs[name], hw="r%d" % (int(name[4:]) % 2))
        if not answer["update_available"]:
            return
        said = {"attempt_id": answer["attempt_id"]}
        self.service.report(name, NEW, "downloaded", **said)
        if name in self.bad:
            self.service.report(name, NEW, "failed", result_code=4, **said)
            return
        self.service.report(name, NEW, "success", **said)
        self.runs[name] = NEW
        self.service.check(name, NEW, hw="r%d" % (int(name[4:]) % 2))


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_events_explain_what_is_after_a_kill(services, clock, round_):
    dice = random.Random(SEED * 1000 + round_)
    print("PAKU_SEED=%d round %d" % (SEED, round_))
    service = services(env=clock.environment())
    service.release(images.esp32(NEW), NEW)
    devices = Devices(service, dice, bad=(0, 0, 0.1, 1)[round_ % 4])
    devices.look_in()
    number = service.rollout(NEW, name="walk", stages=STAGES, guard=GUARD)
    for _ in range(14):
        talk = threading.Thread(target=devices.look_in)
        talk.start()
        killed = dice.random() < 0.4
        if killed:
            time.sleep(dice.random() * 0.06)
            service.kill()
        talk.join()
        if killed:
            service.start()
        # What a person says meanwhile; most of it makes no sense just then, and is refused.
        lead(service, number, dice.choice(("pause", "resume", "resume", "approve", "promote")),
             reason="dice")
        compare(service, number)
        clock.go_on(dice.choice((5, 40, 90)))
    end = compare(service, number)
    assert end["state"] == "halted" or (0, 0, 0.1, 1)[round_ % 4] < 1
    service.restart()
    assert compare(service, number) == end
