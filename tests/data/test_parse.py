"""What is checked before any data is read."""

import contextlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_al.data.datasets import DataError, DatasetSpec, parse_dataset
from ray_al.data.space_definitions import parse_space, parse_spaces
from ray_al.storage import Storage
from tests.data.conftest import faults_of, toy

ODD_KEYS = st.sampled_from(["name", "limit", "classes", "label", "features", "of", "dims", "pool", "test", None, 3])
ODD = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.dates()
    | st.binary(max_size=3)
    | st.sampled_from([0, -1, 5, 10**400, "", "pca", "file", "digits", "arrays", "a.b:c", "x.npz:k", "~no/x"])
)


def test_a_name_and_its_mapping_are_the_same_dataset():
    assert parse_dataset("digits") == parse_dataset({"name": "digits"}) == DatasetSpec("digits")
    assert parse_dataset("digits").label == "digits"


def test_the_display_name_is_no_part_of_the_identity():
    a = parse_dataset({"name": "digits", "limit": 100, "label": "small"})
    b = parse_dataset({"name": "digits", "limit": 100})
    assert a == b
    assert hash(a) == hash(b)
    assert (a.label, b.label) == ("small", "digits[limit=100]")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "classes": st.lists(st.integers(0, 9), min_size=2, max_size=5, unique=True),
            "limit": st.integers(2, 1000),
            "imbalance": st.floats(1, 1000),
            "label_noise": st.floats(0, 0.9),
            "subset_seed": st.integers(0, 2**63 - 1),
            "split_seed": st.integers(0, 99),
            "label": st.just("mine"),
        },
    )
)
def test_a_spec_survives_its_own_mapping(options):
    spec = parse_dataset({"name": "digits", **options})
    again = parse_dataset(spec.to_mapping())
    assert again == spec
    assert again.label == spec.label


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("limit", -5, "here: limit is -5; it must be a whole number from 2 to 1000000000000"),
        ("limit", 10**30, "whole number from 2 to"),
        ("limit", True, "limit is True; it must be a whole number"),
        ("limit", "1e3", "limit is '1e3'; it must be a whole number"),
        ("subset_seed", -1, "subset_seed is -1; it must be a whole number from 0"),
        ("label_noise", 1.0, "label_noise is 1.0; it must be a number at least 0 and below 1"),
        ("label_noise", float("nan"), "label_noise is nan; it must be a number"),
        ("imbalance", 0.5, "imbalance is 0.5; it must be a number at least 1"),
        ("imbalance", float("inf"), "imbalance is inf"),
        ("test_fraction", 0, "test_fraction is 0; it must be a number above 0 and below 1"),
        ("classes", [3], "classes is [3]; it must be a list of two or more distinct class numbers"),
        ("classes", [3, 3], "two or more distinct class numbers"),
        ("classes", [3, -1], "two or more distinct class numbers"),
        ("classes", "3,4", "two or more distinct class numbers"),
        ("label_noise", 10**400, "it must be a number at least 0 and below 1"),
        ("label", 3, "label is 3; it must be a non-empty text"),
        ("limt", 3, "here: unknown option 'limt' for dataset 'digits'; did you mean 'limit'? known: classes"),
        (7, 3, "unknown option 7"),
        ("root", "x", "unknown option 'root' for dataset 'digits'"),
    ],
)
def test_a_wrong_option_is_named_with_its_choices(option, value, message):
    found = faults_of({"name": "digits", option: value})
    assert len(found) == 1
    assert message in found[0]


def test_a_number_of_more_digits_than_python_prints_is_a_fault():
    found = faults_of({"name": "digits", "limit": 10**5000, 10**5000: 3})
    assert "limit is a value too large to show (int); it must be a whole number" in found[0]
    assert "unknown option a value too large to show (int)" in found[1]


def test_all_faults_of_an_entry_come_at_once():
    found = faults_of({"name": "digits", "limit": 0, "label_noise": 2, "tets_fraction": 0.1})
    assert len(found) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mnits", "here: unknown dataset 'mnits'; did you mean 'mnist'? known: arrays, cifar10"),
        ("x" * 300, "unknown dataset 'xxx"),
        ("../secret", "unknown dataset '../secret'"),
        ({}, "the dataset has no name"),
        ({"name": 3}, "the dataset has no name"),
        (7, "a dataset is a name or a mapping with `name:`, not 7"),
        (["digits"], "a dataset is a name or a mapping"),
        ({"name": "arrays"}, "features is missing for dataset 'arrays'"),
        (
            {"name": "arrays", "features": "x.csv", "labels": "y.npy"},
            "features is 'x.csv'; it must be a file ending in",
        ),
        ({"name": "arrays", "features": "x.npy"}, "labels is missing; only an .npz"),
        ({"name": "arrays", "features": "x.npy", "labels": "y"}, "labels is 'y'; it must be a file ending in"),
        ({"name": "arrays", "features": "x.npy", "labels": "y.npy", "test_labels": "t.npy"}, "without test_features"),
        (
            {"name": "arrays", "features": "x.npy", "labels": "y.npy", "test_features": "t.npy"},
            "test_labels is missing",
        ),
        ({"name": "arrays", "features": "x.npz", "test_features": "t.npy"}, "holds its own test split"),
        ({"name": "imagefolder", "path": "p", "size": 0}, "size is 0; it must be a whole number from 1 to 4096"),
        ({"name": "mnist", "download": "yes"}, "download is 'yes'; it must be true or false"),
        ({"name": "a.b:c", "rate": float("nan")}, "rate is nan; it must be a plain value"),
        ({"name": "a.b:c", "rate": {1: 2, "a": 3}}, "rate is {1: 2, 'a': 3}; it must be a plain value"),
        ({"name": "imagefolder", "path": "~nouser/x"}, "'~nouser/x' is no path of this machine"),
        ({"name": "arrays", "features": "~nouser/x.npz"}, "'~nouser/x.npz' is no path of this machine"),
        ({"name": "arrays", "features": "~nouser/x.npy", "labels": "y.npy"}, "'~nouser/x.npy' is no path"),
        ({"name": "mnist", "root": "~nouser/x"}, "'~nouser/x' is no path of this machine"),
        ({"name": "arrays", "features": "x" * 5000 + ".npz"}, "is missing"),
    ],
)
def test_a_wrong_entry_is_named(value, message):
    assert message in faults_of(value)[0]


@pytest.mark.parametrize("place", ["~nouser/x", "a\0b"])
def test_a_storage_that_cannot_be_is_a_value_error(place):
    with pytest.raises(ValueError, match="cannot open storage"):
        Storage.open(place)


@given(st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_KEYS, inner, max_size=4)))
def test_any_yaml_value_is_parsed_or_a_fault(value):
    for parse in (parse_dataset, parse_spaces, lambda v: parse_space("x", v), parse_space):
        with contextlib.suppress(DataError):
            parse(value)


def test_files_of_the_data_folder_are_known_names(folder):
    np.savez(folder / "my_embeddings.npz", **toy())
    assert parse_dataset("my_embeddings").label == "my_embeddings"
    assert "did you mean 'my_embeddings'?" in faults_of("my_embedings")[0]


def test_an_error_survives_the_way_to_another_process():
    error = pickle.loads(pickle.dumps(DataError(["one", "two"])))  # noqa: S301
    assert error.faults == ("one", "two")
    assert str(error) == "one\ntwo"
