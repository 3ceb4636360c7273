"""The statistics against hand-computed values and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import trapezoid

from ray_al.results.selection import common_grid, trajectories
from ray_al.results.statistics import (
    aulc,
    aulc_table,
    best,
    full_level,
    holm,
    labels_to_accuracy,
    learning_curves,
    paired_differences,
)

unit = st.floats(0.0, 1.0, allow_nan=False)


def test_learning_curve_interval_is_the_t_interval_over_seeds(rows):
    values = [0.5, 0.6, 0.9]
    curve = learning_curves(pd.concat([rows([value], seed=seed) for seed, value in enumerate(values)]))
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert curve.loc[0, ["mean", "low", "high", "std"]].tolist() == pytest.approx(
        [2 / 3, low, high, np.std(values, ddof=1)]
    )
    assert curve.loc[0, ["labels", "n"]].tolist() == [10, 3]


def test_learning_curve_of_one_seed_has_no_interval(rows):
    curve = learning_curves(rows([0.5, 0.7]))
    assert curve["mean"].tolist() == [0.5, 0.7]
    assert curve[["low", "high", "std"]].isna().all(axis=None)


def test_learning_curve_keeps_the_finished_rounds_of_a_failed_trajectory(rows):
    curve = learning_curves(pd.concat([rows([0.5, 0.7], seed=0), rows([0.6], seed=1, error="OOM")]))
    assert curve[["labels", "n"]].to_numpy().tolist() == [[10, 2], [20, 1]]


def test_a_metric_that_is_not_a_number_is_never_skipped(rows):
    results = pd.concat([rows([0.5, 0.7], seed=0), rows([0.6, np.nan], seed=1)])
    assert learning_curves(results)["mean"].isna().tolist() == [False, True]
    assert aulc(results)["aulc"].isna().tolist() == [False, True]
    assert aulc_table(results)["mean"].isna().all()
    assert best(results)[0].winner is None


def test_aulc_by_hand(rows):
    areas = aulc(rows([0.2, 0.6, 0.8], [10, 20, 60]))
    assert areas["aulc"].item() == pytest.approx((10 * 0.4 + 40 * 0.7) / 50)


def test_aulc_equals_scipy_for_every_trajectory(sweep):
    results = sweep({"random": 0.2, "margin": 0.3}, datasets=("digits", "mnist"), seeds=3, full=0.97)
    areas = aulc(results.sample(frac=1, random_state=0)).set_index("trajectory_id")["aulc"]
    assert len(areas) == 12
    for name, rounds in results[results["strategy"] != "full"].groupby("trajectory_id"):
        assert areas[name] == pytest.approx(trapezoid(rounds["accuracy"], rounds["labels"]) / 90)


def test_aulc_of_one_round_is_the_metric(rows):
    assert aulc(rows([0.4]))["aulc"].item() == 0.4


def test_aulc_leaves_out_failed_open_full_and_odd_grids(rows):
    results = pd.concat(
        [
            rows([0.5, 0.6, 0.7], seed=0),
            rows([0.5, 0.6, 0.7], seed=1),
            rows([0.5, 0.6], seed=2),  # still running
            rows([0.5, 0.6], seed=3, error="OOM"),
            rows([0.5, 0.6, 0.7], [10, 21, 32], seed=4),  # pays odd amounts
            rows([0.9], [1797], strategy="full"),
        ]
    )
    assert aulc(results)["seed"].tolist() == [0, 1]
    table = trajectories(results).set_index(["strategy", "seed"])
    assert table["state"].to_dict() == {
        ("full", 0): "done",
        ("random", 0): "done",
        ("random", 1): "done",
        ("random", 2): "open",
        ("random", 3): "failed",
        ("random", 4): "done",
    }
    assert table["labels"].loc[("random", 3)] == 20


def test_running_trajectories_never_set_the_grid():
    running, done, odd = (10, 20), (10, 20, 30), (10, 21, 32)
    assert common_grid([running] * 9 + [done] * 2 + [odd], [running, done, odd]) == done
    assert common_grid([running] * 9, [running, done]) == ()
    assert common_grid([odd, odd, done], [odd, done]) == odd


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_aulc_lies_within_the_range_of_the_curve_and_is_linear(rows, data):
    n = data.draw(st.integers(2, 8))
    curve = data.draw(st.lists(unit, min_size=n, max_size=n))
    labels = np.cumsum(data.draw(st.lists(st.integers(1, 500), min_size=n, max_size=n)))
    value = aulc(rows(curve, labels))["aulc"].item()
    assert min(curve) - 1e-9 <= value <= max(curve) + 1e-9
    shifted = aulc(rows([v + 0.25 for v in curve], labels))["aulc"].item()
    assert shifted == pytest.approx(value + 0.25)


def test_paired_differences_equal_scipy_and_ignore_row_order(rows):
    random, margin = [0.50, 0.62, 0.55, 0.71], [0.58, 0.66, 0.57, 0.70]
    results = pd.concat(
        [rows([v, v], seed=s) for s, v in enumerate(random)]
        + [rows([v, v], seed=s, strategy="margin") for s, v in enumerate(margin)]
        + [rows([0.99, 0.99], seed=9, strategy="margin")]  # has no partner
    )
    expected = stats.ttest_rel(margin, random)
    interval = expected.confidence_interval()
    for order in range(3):
        row = aulc_table(results.sample(frac=1, random_state=order)).set_index("strategy").loc["margin"]
        assert row["n"] == 5
        assert row["pairs"] == 4
        assert row["difference"] == pytest.approx(np.mean(np.subtract(margin, random)))
        assert row["p"] == pytest.approx(expected.pvalue)
        assert row[["difference_low", "difference_high"]].tolist() == pytest.approx([interval.low, interval.high])


def test_reference_and_unpaired_strategies_have_no_test(rows):
    results = pd.concat([rows([0.5, 0.6], seed=0), rows([0.6, 0.7], seed=1, strategy="margin")])
    table = aulc_table(results)
    assert table["pairs"].tolist() == [0, 0]
    assert table[["difference", "p", "p_holm"]].isna().all(axis=None)


def test_equal_values_in_every_seed_are_no_difference(rows):
    results = pd.concat([rows([0.5, 0.6], seed=s, strategy=name) for s in range(5) for name in ("random", "margin")])
    assert aulc_table(results).set_index("strategy").loc["margin", "p"] == 1.0
    assert best(results)[0].winner is None


def test_holm_by_hand():
    p = pd.Series([0.03, 0.01, np.nan, 0.04, 0.5])
    assert holm(p).tolist() == pytest.approx([0.09, 0.04, np.nan, 0.09, 0.5], nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(unit, min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(values):
    corrected = holm(pd.Series(values))
    order = np.argsort(values, kind="stable")
    rejected = set()
    for rank, i in enumerate(order):  # Holm 1979: stop at the first p above alpha / (m - rank)
        if values[i] * (len(values) - rank) >= 0.05:
            break
        rejected.add(int(i))
    assert set(corrected.index[corrected < 0.05]) == rejected
    assert (corrected >= values).all()


def test_holm_is_applied_within_each_cell(sweep):
    results = sweep({"random": 0.2, "margin": 0.25, "badge": 0.22}, datasets=("digits", "mnist"))
    differences = paired_differences(aulc(results))
    for _, cell in differences.groupby("dataset"):
        assert np.allclose(cell["p_holm"], holm(cell["p"]))


def test_labels_to_accuracy_by_hand(rows):
    results = pd.concat(
        [
            rows([0.5, 0.7, 0.9], seed=0),
            rows([0.5, 0.9, 0.8], seed=1),
            rows([0.5, 0.6, 0.7], seed=2),
            rows([0.8, 0.9, 0.9], seed=0, strategy="margin"),
            rows([0.7, 0.8, 0.9], seed=1, strategy="margin"),
        ]
    )
    table = labels_to_accuracy(results, [0.7, 0.9]).set_index(["strategy", "target"])
    assert table["labels"].to_dict() == {
        ("margin", 0.7): 10,
        ("margin", 0.9): 25,
        ("random", 0.7): 20,
        ("random", 0.9): 30,
    }
    assert table["reached"].tolist() == [2, 2, 3, 2]
    assert table.loc[("margin", 0.7), "saved"] == 0.5
    never = labels_to_accuracy(results, [0.95])
    assert never["labels"].isna().all()
    assert never["reached"].tolist() == [0, 0]


def test_default_targets_follow_full_or_the_best_final_mean(rows):
    results = pd.concat([rows([0.5, 0.8]), rows([0.5, 0.6], strategy="margin")])
    assert labels_to_accuracy(results)["target"].unique().tolist() == pytest.approx([0.72, 0.76, 0.792])
    bounded = pd.concat([results, rows([0.9], [1797], strategy="full")])
    assert labels_to_accuracy(bounded)["target"].unique().tolist() == pytest.approx([0.81, 0.855, 0.891])
    assert full_level(bounded)[["mean", "labels", "n"]].to_numpy().tolist() == [[0.9, 1797, 1]]


def test_full_bounds_every_protocol_of_its_dataset_and_learner(rows):
    results = pd.concat(
        [rows([0.5, 0.6], protocol=p) for p in ("small", "large")]
        + [rows([0.9], [1797], strategy="full", protocol="all"), rows([0.7], [99], strategy="full", dataset="mnist")]
    )
    level = full_level(results).set_index(["dataset", "protocol"])["mean"].to_dict()
    assert level == {("digits", "small"): 0.9, ("digits", "large"): 0.9, ("mnist", "10+10x9"): 0.7}
    assert labels_to_accuracy(results)["target"].unique().tolist() == pytest.approx([0.81, 0.855, 0.891])


def test_labels_to_accuracy_needs_a_metric_to_climb(rows):
    with pytest.raises(ValueError, match="higher is better"):
        labels_to_accuracy(rows([0.5]), metric="nll")


def test_a_trajectory_in_two_sweeps_counts_once(rows):
    results = pd.concat([rows([0.5, 0.6], sweep="a"), rows([0.5, 0.6], sweep="b")])
    assert learning_curves(results)["n"].tolist() == [1, 1]


def test_two_trajectories_of_one_name_and_seed_are_refused(rows):
    results = pd.concat([rows([0.5]), rows([0.6]).assign(trajectory_id="other")])
    with pytest.raises(ValueError, match=r"two trajectories are called dataset digits.*seed 0"):
        learning_curves(results)


def test_nothing_in_nothing_out(rows):
    empty = rows([0.5]).iloc[:0]
    failed = rows([], error="OOM")
    for results in (empty, failed):
        for function in (learning_curves, aulc, aulc_table, labels_to_accuracy, full_level):
            assert function(results).empty
        assert best(results) == []
    assert trajectories(failed)["state"].tolist() == ["failed"]
    assert trajectories(empty).empty
