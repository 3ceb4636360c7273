"""Rules at their bounds, and numbers against plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_al.reproduction.claims import LABELS, PERCENT, Measured, Reported
from ray_al.reproduction.numbers import average, first_reached, span
from ray_al.reproduction.rules import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Indistinct,
    NearZero,
    Within,
    WithinErrors,
    error_of_difference,
)

NOTHING = Reported()


@pytest.mark.parametrize(
    ("rule", "inside", "outside", "reported"),
    [
        (Within(0.01), Measured(0.97), Measured(0.9701), Reported(0.96)),
        (Within(0.01), Measured(0.95), Measured(0.9499), Reported(0.96)),
        (WithinErrors(3), Measured(0.53, 0.01), Measured(0.5301, 0.01), Reported(0.50)),
        (
            WithinErrors(3),
            Measured(0.65, 0.04),
            Measured(0.651, 0.04),
            Reported(0.50, 0.06, 4),
        ),  # 3 sqrt(4^2 + 3^2) = 15
        (AtLeast(0.2), Measured(0.2), Measured(0.199), NOTHING),
        (AtLeast(0.2, 2), Measured(0.2, 0.09), Measured(0.2, 0.1), NOTHING),
        (AtLeast(120), Measured(math.inf), Measured(100), NOTHING),
        (AtMost(40), Measured(40), Measured(math.inf), NOTHING),
        (Above(0), Measured(1e-9), Measured(0.0), NOTHING),
        (Below(0.8), Measured(0.7999), Measured(0.8), NOTHING),
        (Indistinct(2), Measured(0.02, 0.01), Measured(0.021, 0.01), NOTHING),
        (Indistinct(2), Measured(-1.0), Measured(0.001), NOTHING),  # of one run, no error is known
        (NearZero(0.03), Measured(-0.03), Measured(0.031), NOTHING),
    ],
)
def test_bounds(rule, inside, outside, reported):
    assert rule.holds(inside, reported)
    assert not rule.holds(outside, reported)


def test_of_one_run_the_bound_alone_counts():
    assert AtLeast(0.2, 2).holds(Measured(0.2, math.nan, runs=1), NOTHING)
    assert not AtLeast(0.2, 2).holds(Measured(0.1, math.nan, runs=1), NOTHING)


def test_one_run_is_taken_to_vary_as_the_papers():
    reported = Reported(0.5, 0.03, 9)  # standard error 0.01
    assert error_of_difference(Measured(0.5, math.nan, runs=1), reported) == pytest.approx(math.hypot(0.03, 0.01))
    assert error_of_difference(Measured(0.5, 0.02, runs=5), reported) == pytest.approx(math.hypot(0.02, 0.01))
    assert error_of_difference(Measured(0.5, 0.02, runs=5), Reported(0.5)) == pytest.approx(0.02)
    assert not WithinErrors(3).holds(Measured(0.5, math.nan, runs=1), Reported(0.6))  # nothing is known of either


def test_rules_say_what_they_ask_for():
    assert Within(0.01).text(PERCENT) == "within 1"
    assert AtLeast(0.0702, 2).text(PERCENT) == "at least 7.02 and 2 se above 0"
    assert AtMost(40).text(LABELS) == "at most 40 labels"
    assert PERCENT.short(0.5) == "50"
    assert LABELS.show(math.inf) == "never"


shares = st.floats(0, 1, width=32)


@given(st.lists(st.lists(shares, min_size=1, max_size=6), min_size=1, max_size=4))
def test_averages(groups):
    rows = [{"run": f"r{i}", "accuracy": value} for i, group in enumerate(groups) for value in group]
    found = average(pd.DataFrame(rows))
    means = [sum(group) / len(group) for group in groups]
    assert found.value == pytest.approx(sum(means) / len(means), abs=1e-9)
    assert (found.runs, found.repeats) == (min(map(len, groups)), len(groups))
    free = sum(len(group) - 1 for group in groups)
    if free:
        squares = sum((value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group)
        assert found.std == pytest.approx(math.sqrt(squares / free), abs=1e-9)
        between = np.var(means, ddof=1) / len(means) if len(means) > 1 else 0.0
        assert found.error == pytest.approx(math.sqrt(squares / free / found.runs + between), abs=1e-9)
    elif len(groups) > 1:
        assert found.error == pytest.approx(np.std(means, ddof=1) / math.sqrt(len(means)), abs=1e-9)
    else:
        assert math.isnan(found.std)
        assert math.isnan(found.error)


def test_where_a_level_is_reached():
    assert first_reached([20, 40, 60], [0.9, 0.96, 0.95], 0.955) == 40
    assert first_reached([20, 40], [0.9, 0.95], 0.955) == math.inf


def test_numbers_of_labels_in_words():
    assert span([40]) == "40"
    assert span([40, 20, 20]) == "20, 40"
    assert span([20, 40, 60, 80]) == "20 to 80, every 20"
    assert span([100, 200, 600, 1000]) == "100 to 1,000, 4 budgets"
