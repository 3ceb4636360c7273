"""Row options: what they keep, in which order, and that each is a function of its seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_al.data.subsets import imbalanced_rows, limit_rows, noisy_labels, stratified_split
from tests.data.conftest import faults_of, load, toy


@pytest.fixture
def data(folder):
    arrays = toy(rows=400, classes=4, test=80)
    np.savez(folder / "toy.npz", **arrays)
    train_only = {key: value for key, value in arrays.items() if key.startswith("train")}
    np.savez(folder / "single.npz", **train_only)
    return arrays


def test_classes_are_relabeled_in_their_own_order_in_both_splits(data):
    dataset = load({"name": "toy", "classes": [3, 1]})
    rows = np.flatnonzero(np.isin(data["train_labels"], [3, 1]))
    np.testing.assert_array_equal(dataset.arrays["pool"], data["train_features"][rows])
    np.testing.assert_array_equal(dataset.pool_labels, np.where(data["train_labels"][rows] == 3, 0, 1))
    assert dataset.classes == 2
    assert set(dataset.test_labels) == {0, 1}


def test_limits_are_stratified_and_nested(data):
    small, large = (load({"name": "toy", "limit": n}) for n in (22, 90))
    assert len(small.pool_labels) == 22
    assert np.bincount(small.pool_labels).min() >= 5
    rows = {row.tobytes() for row in large.arrays["pool"]}
    assert all(row.tobytes() in rows for row in small.arrays["pool"])
    assert len(small.arrays["test"]) == 80
    other = load({"name": "toy", "limit": 22, "subset_seed": 1})
    assert other.fingerprint != small.fingerprint


def test_imbalance_is_a_long_tail_of_the_pool_only(data):
    dataset = load({"name": "toy", "imbalance": 10})
    assert np.bincount(dataset.pool_labels).tolist() == [100, 46, 22, 10]
    assert np.bincount(dataset.test_labels).tolist() == [20] * 4


def test_label_noise_changes_an_exact_share_of_pool_labels_only(data):
    dataset = load({"name": "toy", "label_noise": 0.25})
    assert (dataset.pool_labels != data["train_labels"]).sum() == 100
    np.testing.assert_array_equal(dataset.test_labels, data["test_labels"])
    np.testing.assert_array_equal(dataset.arrays["pool"], data["train_features"])
    assert dataset.pool_labels.max() == 3


def test_options_combine_in_the_documented_order(data):
    dataset = load({"name": "toy", "classes": [2, 0, 1], "imbalance": 4, "limit": 60, "label_noise": 0.1})
    assert len(dataset.pool_labels) == 60
    clean = load({"name": "toy", "classes": [2, 0, 1], "imbalance": 4, "limit": 60})
    np.testing.assert_array_equal(dataset.arrays["pool"], clean.arrays["pool"])
    counts = np.bincount(clean.pool_labels)
    assert counts[0] > counts[1] > counts[2]
    assert (dataset.pool_labels != clean.pool_labels).sum() == 6


def test_a_missing_test_split_is_drawn_by_class(data):
    dataset = load({"name": "single", "test_fraction": 0.1})
    assert np.bincount(dataset.test_labels).tolist() == [10] * 4
    assert len(dataset.pool_labels) == 360
    assert len(load("single").test_labels) == 80
    assert load({"name": "single", "split_seed": 1}).fingerprint != load("single").fingerprint
    # The seed of the other options leaves the test split alone.
    one, two = (load({"name": "single", "limit": 50, "subset_seed": s}) for s in (0, 1))
    np.testing.assert_array_equal(one.arrays["test"], two.arrays["test"])


def test_the_same_entry_gives_the_same_data(data):
    entry = {"name": "single", "classes": [0, 3], "imbalance": 3, "limit": 40, "label_noise": 0.2, "subset_seed": 5}
    assert load(entry).fingerprint == load(entry).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": [0, 9, 11]}, "classes holds 9, 11; the dataset has classes 0 to 3"),
        ({"limit": 401}, "limit is 401, but the pool has only 400 rows"),
        ({"limit": 3}, "limit is 3, fewer than the 4 classes"),
        ({"test_fraction": 0.5}, "test_fraction is 0.5, but the dataset has a test split of its own"),
    ],
)
def test_options_that_do_not_fit_the_data_are_named(data, options, message):
    assert message in faults_of({"name": "toy", **options})[0]


def test_a_subset_without_test_rows_is_a_fault(folder):
    arrays = toy(test=2)
    np.savez(folder / "toy.npz", **arrays)
    assert "the test split has no rows of classes 2, 3" in faults_of({"name": "toy", "classes": [2, 3]})[0]


labels_of = st.lists(st.integers(0, 4), min_size=6, max_size=80).map(lambda tail: np.array([0, 1, 2, 3, 4, *tail]))


@given(labels_of, st.integers(0, 3), st.floats(0.01, 0.99))
def test_a_split_parts_the_rows_and_keeps_every_class_in_the_pool(labels, seed, fraction):
    pool, test = stratified_split(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([pool, test])), np.arange(len(labels)))
    assert set(labels[pool]) == set(range(5))
    counts = np.bincount(labels)
    assert all((labels[test] == c).sum() >= (counts[c] > 1) for c in range(5))


@given(labels_of, st.integers(0, 3), st.data())
def test_every_limit_of_at_least_the_classes_holds_all_classes(labels, seed, draw):
    large = draw.draw(st.integers(5, len(labels)))
    small = draw.draw(st.integers(5, large))
    rows = limit_rows(labels, small, seed)
    assert len(set(rows)) == small
    assert set(labels[rows]) == set(range(5))
    assert set(rows) <= set(limit_rows(labels, large, seed))
    share = np.bincount(labels[rows], minlength=5) - small * np.bincount(labels) / len(labels)
    assert np.abs(share).max() < 5


@given(labels_of, st.floats(1, 1e6))
def test_imbalance_keeps_every_class(labels, ratio):
    rows = imbalanced_rows(labels, ratio, 0)
    assert len(set(rows)) == len(rows)
    assert set(labels[rows]) == set(range(5))


@given(labels_of, st.floats(0, 0.99), st.integers(0, 3))
def test_noise_never_keeps_the_class_it_replaces(labels, fraction, seed):
    noisy = noisy_labels(labels, 5, fraction, seed)
    assert (noisy != labels).sum() == round(fraction * len(labels))
    assert noisy.min() >= 0
    assert noisy.max() <= 4
