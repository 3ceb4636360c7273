"""The space of a VAE: identity, faults, and the artifact, which is trained once."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from ray_al.config import ConfigError, parse_sweep
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.faults import DataError
from ray_al.data.materialize import has_space, open_array, space_artifact, space_name
from ray_al.data.space_definitions import parse_space, parse_spaces
from ray_al.data.spaces import find_space, space_width
from ray_al.data.vae_space import train_quietly
from ray_al.storage import Storage
from tests.data.conftest import load, toy, toy_images


@pytest.fixture
def images(folder):
    np.savez(folder / "pictures.npz", **toy_images())
    return load("pictures")


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(Storage.open(tmp_path / "runs"))


def small(**options):
    return parse_space("latent", {"name": "vae", "dims": 2, "epochs": 1, "device": "cpu", **options})


def test_the_key_is_what_decides_the_codes(images):
    names = {
        "same": parse_space("latent", {"name": "vae", "dims": 3, "kl_mode": "book", "seed": 0, "epochs": 10}),
        "built in": parse_space("vae3"),
        "dims": parse_space("vae4"),
        **{key: parse_space("x", {"name": "vae", "dims": 3, key: value})
           for key, value in {"kl_mode": "elbo", "seed": 1, "epochs": 9, "batch": 8, "device": "cpu"}.items()},
    }  # fmt: skip
    keys = {name: json.dumps(spec.key(images), sort_keys=True) for name, spec in names.items()}
    assert keys["same"] == keys["built in"]
    assert len(set(keys.values())) == len(keys) - 1
    assert all(images.fingerprint in key and '"version"' in key for key in keys.values())
    assert space_width(names["dims"], images) == 4


def test_the_value_of_white_is_in_the_key(folder):
    arrays = {key: value // 4 if "images" in key else value for key, value in toy_images().items()}
    np.savez(folder / "a.npz", **arrays)
    np.savez(folder / "b.npz", **arrays, pixel_max=63)
    assert small().key(load("a")) != small().key(load("b"))


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({}, "dims is missing for a vae space"),
        ({"dims": 0}, "dims is 0; it must be a whole number from 1 to 1024"),
        ({"dims": 2, "kl_mode": "beta"}, "kl_mode is 'beta'; it must be book or elbo"),
        ({"dims": 2, "kl_mode": ["book"]}, "kl_mode is ['book']; it must be book or elbo"),
        ({"dims": 2, "seed": -1}, "seed is -1; it must be a whole number"),
        ({"dims": 2, "epochs": 1.5}, "epochs is 1.5; it must be a whole number"),
        ({"dims": 2, "batch": True}, "batch is True; it must be a whole number"),
        ({"dims": 2, "device": "gpu"}, "device is 'gpu'; it must be auto, cpu, cuda, cuda:0"),
        ({"dims": 2, "beta": 4}, "unknown option 'beta' for a vae space"),
        ({"dims": 2, "of": "pixels"}, "unknown option 'of' for a vae space"),
    ],
)
def test_faults_of_a_definition_are_one_message(definition, message):
    with pytest.raises(DataError) as caught:
        parse_space("x", {"name": "vae", **definition}, "here")
    assert len(caught.value.faults) == 1
    assert message in caught.value.faults[0]


@pytest.mark.parametrize("name", ["vae0", "vae", "vae1025", "VAE3"])
def test_names_that_are_no_vae(name):
    with pytest.raises(DataError, match="unknown space"):
        find_space(name)


def test_a_sweep_says_at_once_that_features_are_no_images(folder):
    np.savez(folder / "toy.npz", **toy(width=6))
    axes = {"dataset": ["toy"], "learner": [{"name": "svc", "space": "vae2"}], "strategy": ["random"], "seed": 1}
    with pytest.raises(ConfigError) as caught:
        parse_sweep({"name": "x", "axes": axes, "protocol": {"initial": 4, "batch": 2, "rounds": 2}})
    assert caught.value.faults == ("space 'vae2' of dataset 'toy': needs images, but the dataset has features",)


def test_the_artifact_is_whole_and_trained_once(images, store):
    calls = []

    def train(artifact, settings, what):
        calls.append(what)
        return train_quietly(artifact, settings, what)

    assert not has_space(store, images, small())
    made = space_artifact(store, images, small(), train=train)
    again = space_artifact(store, images, parse_space("other", {**DEFINITION, "device": "cpu"}), train=train)
    assert calls == ["space 'latent' of dataset 'pictures'"]
    assert made.path == again.path
    assert made.name == space_name(images, small())
    assert has_space(store, images, small())
    assert open_array(made, "pool").shape == (40, 2)
    assert open_array(made, "test").shape == (12, 2)
    history = json.loads((made.path / "history.json").read_text())
    assert history["device"] == "cpu"
    assert [epoch["number"] for epoch in history["epochs"]] == [1]
    assert history["variances"] == pytest.approx(open_array(made, "pool").var(0, dtype=np.float64).tolist())
    assert load_file(made.path / "weights.safetensors")["mean.weight"].shape == (2, 32)


DEFINITION = {"name": "vae", "dims": 2, "epochs": 1}


def test_codes_do_not_depend_on_labels_or_test_images_of_the_training(folder, store):
    """Other test images leave the pool's codes as they are: only the pool is trained on."""
    arrays = toy_images()
    np.savez(folder / "a.npz", **arrays)
    np.savez(folder / "b.npz", **{**arrays, "test_images": 255 - arrays["test_images"]})
    a, b = (space_artifact(store, load(name), small()) for name in ("a", "b"))
    np.testing.assert_array_equal(open_array(a, "pool"), open_array(b, "pool"))
    assert not np.array_equal(open_array(a, "test"), open_array(b, "test"))


def test_a_pca_of_codes(images, store):
    spaces = parse_spaces(
        {"latent": {**DEFINITION, "device": "cpu"}, "flat": {"name": "pca", "of": "latent", "dims": 1}}
    )
    assert open_array(space_artifact(store, images, spaces["flat"], spaces), "pool").shape == (40, 1)


def test_a_training_that_fails_is_a_fault_of_the_space(images, store):
    def train(artifact, settings, what):
        raise FloatingPointError("vae: the loss is nan in epoch 2")

    with pytest.raises(DataError) as caught:
        space_artifact(store, images, small(), train=train)
    assert caught.value.faults == ("space 'latent' of dataset 'pictures': vae: the loss is nan in epoch 2",)
    assert not has_space(store, images, small())
