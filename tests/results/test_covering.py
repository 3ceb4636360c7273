"""Covering radii: against the definition, for sets that grow and for draws of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.results import covering
from ray_al.results.covering import RADIUS, covering_radii, labeled_sets, radius_table, sample_rows


def naive(x: np.ndarray, ids: np.ndarray) -> float:
    gaps = x[:, None].astype(np.float64) - x[None, ids].astype(np.float64)
    return float(np.sqrt((gaps**2).sum(2)).min(1).max())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), d=st.integers(1, 9), grow=st.booleans(), twins=st.booleans())
def test_radii_against_the_definition(seed, d, grow, twins):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(60, d)) + 100).astype(np.float32)  # far from the origin: rounding must not be seen
    if twins:
        x[30:] = x[:30]
    order = rng.permutation(60)
    sets = [order[:3], order[:10], order[:25]] if grow else [rng.permutation(60)[:n] for n in (3, 10, 25)]
    found = list(covering_radii(x, sets, np.arange(60)))
    np.testing.assert_allclose(found, [naive(x, ids) for ids in sets], rtol=1e-4, atol=2e-3)


def test_everything_labeled_covers_exactly():
    x = np.random.default_rng(0).normal(size=(20, 784)).astype(np.float32)
    assert list(covering_radii(x, [np.arange(20)], np.arange(20))) == [0.0]


def test_an_empty_set_has_no_radius():
    with pytest.raises(ValueError, match="an empty set covers nothing"):
        list(covering_radii(np.ones((3, 2)), [np.empty(0, np.int64)], np.arange(3)))


def test_a_sample_bounds_the_radius_from_below_and_is_the_same_every_time():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    ids = np.arange(5)
    at = sample_rows(500, 100)
    assert len(set(at.tolist())) == 100
    np.testing.assert_array_equal(at, sample_rows(500, 100))
    np.testing.assert_array_equal(sample_rows(7, 100), np.arange(7))
    (part,), (whole,) = (list(covering_radii(x, [ids], rows)) for rows in (at, np.arange(500)))
    assert part <= whole + 1e-6


def test_labeled_sets_of_growing_rounds_and_of_draws():
    asked = [np.array([7, 1]), np.array([5]), np.array([2, 9])]
    assert [s.tolist() for s in labeled_sets(asked, [2, 3, 5])] == [[7, 1], [7, 1, 5], [7, 1, 5, 2, 9]]
    assert [s.tolist() for s in labeled_sets(asked, [2, 1, 2])] == [[7, 1], [5], [2, 9]]


def rounds(learner: str, strategy: str, seed: int, asked: list[list[int]]) -> pd.DataFrame:
    sizes = np.cumsum([len(ids) for ids in asked])
    return pd.DataFrame(
        {
            "trajectory_id": f"{learner}{strategy}{seed}",
            "dataset": "toy",
            "learner": learner,
            "protocol": "p",
            "strategy": strategy,
            "seed": seed,
            "round": range(len(asked)),
            "labels": sizes,
            "n_labeled": sizes,
            "asked_ids": asked,
        }
    )


X = np.arange(20, dtype=np.float32)[:, None]  # on a line: radii can be read off


def test_learners_with_equal_picks_count_once():
    frame = pd.concat(
        [
            *(rounds(learner, "random", 0, [[0], [19]]) for learner in ("a", "b")),
            rounds("a", "margin", 0, [[0], [10]]),
            rounds("b", "margin", 0, [[0], [5]]),
        ]
    )
    table = radius_table(frame, X, "line").set_index(["strategy", "labels"])[RADIUS]
    assert table.to_dict() == {
        **{("random", 1): 19.0, ("random", 2): 9.0},
        **{("margin, a", 1): 19.0, ("margin, a", 2): 9.0, ("margin, b", 1): 19.0, ("margin, b", 2): 14.0},
    }
    assert set(radius_table(frame, X, "line")["learner"]) == {"line"}


def test_too_much_work_leaves_the_first_seeds(monkeypatch):
    frame = pd.concat([rounds("a", s, seed, [[seed], [seed + 5]]) for s in ("x", "y") for seed in range(10)])
    assert radius_table(frame, X, "line")["seed"].nunique() == 10
    work = 20 * 3 * (1 + covering.PAIR)  # of one trajectory: items x labels of its two sets x (dimensions + PAIR)
    monkeypatch.setattr(covering, "WORK", 3.5 * 2 * work)
    found = radius_table(frame, X, "line")
    assert sorted(set(found["seed"])) == [0, 1, 2]
    monkeypatch.setattr(covering, "WORK", 1.0)
    assert set(radius_table(frame, X, "line")["seed"]) == {0}
    assert radius_table(frame.iloc[:0], X, "line").empty
