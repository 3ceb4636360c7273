"""Spaces: parsing, identity, and whether they fit a dataset."""

import json

import numpy as np
import pytest

from ray_al.data.faults import DataError
from ray_al.data.space_definitions import parse_space, parse_spaces
from ray_al.data.spaces import default_space, find_space, space_faults, space_width
from tests.data.conftest import load, toy, toy_images


@pytest.fixture
def features(folder):
    np.savez(folder / "toy.npz", **toy(width=6))
    return load("toy")


@pytest.fixture
def images(folder):
    np.savez(folder / "pictures.npz", **toy_images())
    return load("pictures")


def faults(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments)
    return list(caught.value.faults)


def test_built_in_spaces():
    assert parse_space("pca50").dims == 50
    assert parse_space("pca50").of is None
    assert {parse_space(name).method for name in ("images", "pixels", "features")} == {"images", "pixels", "features"}


def test_own_spaces():
    spaces = parse_spaces(
        {
            "small": {"name": "pca", "of": "pixels", "dims": 64, "whiten": True},
            "smaller": {"name": "pca", "of": "small", "dims": 8},
            "ssl": {"name": "file", "pool": "x.npy", "test": "t.npz:key"},
        }
    )
    assert spaces["small"].whiten
    assert find_space("smaller", spaces).of == "small"
    assert find_space("pca3", spaces).dims == 3


@pytest.mark.parametrize(
    ("name", "definition", "message"),
    [
        (
            "pixel",
            None,
            "here: unknown space 'pixel'; did you mean 'pixels'? known: features, images, pca<d>, pixels, vae<d>",
        ),
        ("pca0", None, "unknown space 'pca0'"),
        ("pixels", {"name": "pca", "dims": 3}, "'pixels' is built in; give the space another name"),
        ("pca5", {"name": "pca", "dims": 3}, "'pca5' is built in"),
        ("a b", {"name": "pca", "dims": 3}, "a space is named by letters"),
        ("x", {"name": "pac", "dims": 3}, "'pac' is not a way to make a space; did you mean 'pca'? known: embed"),
        ("x", "pca", "'pca' is not a way to make a space"),
        ("x", {"name": ["pca"]}, "['pca'] is not a way to make a space"),
        (["x"], None, "unknown space ['x']"),
        ("x", {"name": "pca"}, "dims is missing for a pca space"),
        ("x", {"name": "pca", "dims": -1}, "dims is -1; it must be a whole number from 1 to 16384"),
        ("x", {"name": "pca", "dims": 10**9}, "dims is 1000000000; it must be a whole number"),
        ("x", {"name": "pca", "dims": 3, "whiten": 1}, "whiten is 1; it must be true or false"),
        ("x", {"name": "pca", "dims": 3, "dim": 3}, "unknown option 'dim' for a pca space; did you mean 'dims'?"),
        ("x", {"name": "file", "pool": "x.npy"}, "test is missing for a file space"),
        ("x", {"name": "embeddings"}, "path is missing for an embeddings space"),
        (
            "x",
            {"name": "file", "pool": "x.csv", "test": "t.npy"},
            "pool is 'x.csv'; it must be a .npy, .npz or .parquet",
        ),
    ],
)
def test_faults_of_a_definition_are_named(name, definition, message):
    found = faults(parse_space, name, definition, "here")
    assert len(found) == 1
    assert message in found[0]


def test_all_faults_of_all_definitions_come_at_once():
    found = faults(
        parse_spaces,
        {
            "a": {"name": "pca", "of": "b", "dims": 3},
            "b": {"name": "pca", "of": "a", "dims": 3},
            "c": {"name": "pca", "of": "pixles", "dims": 3},
            "d": {"name": "pca", "dims": 0, "whiten": 3},
            "e": {"name": "pca", "of": "d", "dims": 3},
        },
    )
    assert found == [
        "spaces.d: dims is 0; it must be a whole number from 1 to 16384",
        "spaces.d: whiten is 3; it must be true or false",
        "spaces.a: a space cannot be made of itself: a of b of a",
        "spaces.b: a space cannot be made of itself: b of a of b",
        "spaces.c: of: unknown space 'pixles'; did you mean 'pixels'? "
        "known: a, b, c, e, features, images, pca<d>, pixels, vae<d>",
    ]


def test_the_key_is_content_not_names(images, tmp_path):
    spaces = parse_spaces(
        {
            "one": {"name": "pca", "of": "pixels", "dims": 8},
            "two": {"name": "pca", "dims": 8, "whiten": False},
            "three": {"name": "pca", "of": "pixels", "dims": 8, "whiten": True},
            "four": {"name": "pca", "of": "one", "dims": 4},
            "five": {"name": "pca", "of": "two", "dims": 4},
        }
    )
    keys = {name: json.dumps(spec.key(images, spaces), sort_keys=True) for name, spec in spaces.items()}
    assert keys["one"] == keys["two"] == json.dumps(parse_space("pca8").key(images), sort_keys=True)
    assert keys["four"] == keys["five"]
    assert len(set(keys.values())) == 3
    assert images.fingerprint in keys["four"]


def test_the_key_holds_the_value_of_white(folder):
    arrays = {key: value // 4 if "images" in key else value for key, value in toy_images().items()}
    np.savez(folder / "a.npz", **arrays)
    np.savez(folder / "b.npz", **arrays, pixel_max=63)
    a, b = load("a"), load("b")
    assert a.fingerprint == b.fingerprint
    assert parse_space("pixels").key(a) != parse_space("pixels").key(b)


def test_a_file_space_is_known_by_its_content(features):
    rng = np.random.default_rng(0)
    pool, test = rng.normal(size=(40, 2)).astype(np.float32), rng.normal(size=(12, 2)).astype(np.float32)
    np.save("p.npy", pool)
    np.save("t.npy", test)
    np.savez("both.npz", p=pool, t=test)
    one = parse_space("ssl", {"name": "file", "pool": "p.npy", "test": "t.npy"})
    two = parse_space("other", {"name": "file", "pool": "both.npz:p", "test": "both.npz:t"})
    before = one.key(features)
    assert before == two.key(features)
    np.save("p.npy", pool + 1)
    assert one.key(features) != before


@pytest.mark.parametrize(
    ("pool", "test", "message"),
    [
        (np.zeros((39, 2)), np.zeros((12, 2)), "p.npy has 39 rows, but the dataset has 40 pool items"),
        (np.zeros((40, 2)), np.zeros((40, 2)), "t.npy has 40 rows, but the dataset has 12 test items"),
        (np.full((40, 2), np.nan), np.zeros((12, 2)), "p.npy has 80 values that are NaN"),
        (np.zeros((40, 2)), np.zeros((12, 3)), "p.npy has 2 dimensions and t.npy 3"),
        (np.zeros(40), np.zeros((12, 2)), "p.npy has shape (40,)"),
        (None, np.zeros((12, 2)), "p.npy is missing"),
        (np.zeros((0, 2, 2)), np.zeros((12, 4)), "p.npy has shape (0, 4)"),
    ],
)
def test_faults_of_a_file_space_are_named(features, pool, test, message):
    for name, rows in (("p.npy", pool), ("t.npy", test)):
        if rows is not None:
            np.save(name, rows)
    found = space_faults(parse_space("ssl", {"name": "file", "pool": "p.npy", "test": "t.npy"}), features)
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("space 'ssl' of dataset 'toy'")


@pytest.mark.parametrize("pool", ["~nouser/p.npy", "p" * 5000 + ".npy", "p\0.npy"])
def test_a_path_that_cannot_be_is_a_fault(features, pool):
    (found,) = space_faults(parse_space("ssl", {"name": "file", "pool": pool, "test": "t.npy"}), features)
    assert found.startswith("space 'ssl' of dataset 'toy': ")


def test_spaces_are_a_mapping():
    assert "spaces are a mapping of names to definitions, not ['a']" in faults(parse_spaces, ["a"])[0]
    assert "a space is named by letters" in faults(parse_spaces, {3: {"name": "pca", "dims": 3}})[0]


def test_spaces_that_do_not_fit_a_dataset_are_named(features, images):
    cases = [
        (parse_space("pixels"), features, "needs images, but the dataset has features"),
        (parse_space("images"), features, "needs images, but the dataset has features"),
        (parse_space("features"), images, "needs features, but the dataset has images"),
        (parse_space("pca7"), features, "dims is 7, but there are only 6 dimensions and 40 pool rows"),
        (parse_space("pca41"), images, "dims is 41, but there are only 90 dimensions and 40 pool rows"),
        (parse_space("x", {"name": "pca", "of": "images", "dims": 2}), images, "take it of 'pixels'"),
        (parse_space("x", {"name": "pca", "of": "pixels", "dims": 2}), features, "needs images"),
        (parse_space("x", {"name": "pca", "of": "nothing", "dims": 2}), features, "unknown space 'nothing'"),
    ]
    for spec, dataset, message in cases:
        assert message in faults(spec.key, dataset)[0]


def test_default_space_and_width(features, images):
    assert default_space(features).name == "features"
    assert default_space(images).name == "pixels"
    assert space_width(default_space(features), features) == 6
    assert space_width(default_space(images), images) == 90
    assert space_width(parse_space("pca5"), images) == 5
