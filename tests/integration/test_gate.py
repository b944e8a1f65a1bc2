# SPDX-License-Identifier: MIT
"""The evidence and the bound of the gate against a computation of their own: exact fractions, and
logarithms of 60 digits."""
import decimal
import fractions
import functools
import os
import random
import subprocess

import pytest

from service import BUILD

DRIVER = os.path.join(BUILD, "tests", "integration", "gate_driver")
DEFAULT = ("0.01", "125", "2", "500", "0.05", "0.1", "0.2", "0.5", "0.95")
MOST = 10**300  # no R_q goes above
CONTEXT = decimal.Context(prec=60)


@functools.cache
def left(n):
    """g(n) = 1 / (1 + ln(1 + n))"""
    return fractions.Fraction(CONTEXT.divide(1, 1 + CONTEXT.ln(decimal.Decimal(1 + n))))


def exactly(p0, suspects, outcomes):
    """After each outcome: E and the R_q."""
    p0 = fractions.Fraction(p0)
    suspects = [fractions.Fraction(q) for q in suspects]
    r = [fractions.Fraction(0)] * len(suspects)
    for n, outcome in enumerate(outcomes, 1):
        w = left(n - 1) - left(n)
        r = [min((x + w) * (q / p0 if outcome == "F" else (1 - q) / (1 - p0)), MOST)
             for x, q in zip(r, suspects)]
        yield sum(r) / len(r) + left(n), r


def bounds(p0, suspect, initial, most, outcomes):
    """After each outcome: how many may be without one."""
    ln = {o: CONTEXT.ln(CONTEXT.divide(a, b)) for o, a, b in (
        ("F", decimal.Decimal(suspect), decimal.Decimal(p0)),
        ("P", 1 - decimal.Decimal(suspect), 1 - decimal.Decimal(p0)))}
    bound, since = initial, ""
    for outcome in outcomes:
        since += outcome
        if len(since) >= bound:
            up = sum(ln[o] for o in since) <= 0
            bound = min(2 * bound, most) if up else max(bound // 2, min(2, initial))
            since = ""
        yield bound


def by_the_gate(parameters, outcomes):
    run = subprocess.run([DRIVER, *parameters], input=outcomes, capture_output=True, text=True,
                         check=True, timeout=60)
    return [line.split() for line in run.stdout.splitlines()]


def near(have, want):
    return abs(fractions.Fraction(have) - want) <= want / 10**9


def compare(parameters, outcomes):
    p0, halt_at, initial, most, *suspects = parameters
    told = by_the_gate(parameters, outcomes)
    assert len(told) == len(outcomes)
    halted = False
    expected = zip(told, exactly(p0, suspects, outcomes),
                   bounds(p0, suspects[0], int(initial), int(most), outcomes))
    for n, ((e, bound, is_halted, *r), (want_e, want_r), want_bound) in enumerate(expected, 1):
        assert near(e, want_e), (outcomes[:n], e, float(want_e))
        assert len(r) == len(want_r) and all(map(near, r, want_r)), (outcomes[:n], r)
        assert int(bound) == want_bound, outcomes[:n]
        halted = halted or want_e / 2 >= fractions.Fraction(halt_at)
        assert int(is_halted) == halted, (outcomes[:n], float(want_e))
    return halted


def test_the_first_two_fail():
    assert compare(DEFAULT, "FF")
    told = by_the_gate(DEFAULT, "FF")
    assert 990 < float(told[1][0]) < 992 and told[0][2] == "0" and told[1][2] == "1"


@pytest.mark.parametrize("bad", [0.005, 0.01, 0.05, 0.2, 0.5, 1])
def test_random_outcomes(bad):
    seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))
    rng = random.Random(seed)
    print("TEST_SEED=%d" % seed)
    for _ in range(8):
        compare(DEFAULT, "".join("F" if rng.random() < bad else "P" for _ in range(150)))


@pytest.mark.parametrize("parameters", [
    ("0.001", "50", "1", "7", "0.002"),
    ("0.3", "1000", "20", "40", "0.35", "0.99"),
    ("0.000001", "1000000", "2", "500", "0.00001", "0.001", "0.999"),
])
def test_other_parameters(parameters):
    rng = random.Random(repr(parameters))
    halts = {compare(parameters, "".join("F" if rng.random() < bad else "P" for _ in range(150)))
             for bad in (0.02, 0.3, 0.4, 0.9)}
    assert True in halts


def test_long_after():
    """Late in a long walk the weights are tiny differences: they keep their digits."""
    outcomes = "P" * 1500 + "F" + "P" * 30 + "FFF"
    compare(DEFAULT, outcomes)
