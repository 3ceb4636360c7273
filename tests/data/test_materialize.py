"""Datasets and spaces as artifacts: values, identity, and the same bits whatever the number of threads."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.faults import DataError
from ray_al.data.materialize import dataset_artifact, dataset_config, has_space, open_array, space_artifact
from ray_al.data.pca import fit_pca
from ray_al.data.rows import is_mapped
from ray_al.data.space_definitions import parse_space, parse_spaces
from ray_al.data.spaces import find_space
from ray_al.storage import Storage
from tests.data.conftest import load, toy, toy_images


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(Storage.open(tmp_path / "runs"))


@pytest.fixture
def images(folder):
    np.savez(folder / "pictures.npz", **toy_images(rows=200))
    return load("pictures")


@pytest.fixture
def features(folder):
    np.savez(folder / "toy.npz", **toy(rows=200, width=8))
    return load("toy")


def test_a_dataset_is_whole_in_its_artifact(store, images):
    artifact = dataset_artifact(store, images)
    for split, array in {**images.arrays, "pool_labels": images.pool_labels, "test_labels": images.test_labels}.items():
        stored = open_array(artifact, split)
        np.testing.assert_array_equal(stored, array)
        assert stored.dtype == array.dtype
        assert type(stored) is np.ndarray
        assert is_mapped(stored)
        with pytest.raises(ValueError, match="read-only"):
            stored[0] = 0
    assert artifact.config == dataset_config(images)
    assert artifact.config["classes"] == 4


def test_plain_spaces(store, images, features):
    assert space_artifact(store, images, find_space("images")) == dataset_artifact(store, images)
    assert space_artifact(store, features, find_space("features")) == dataset_artifact(store, features)
    assert has_space(store, images, find_space("images"))
    pixels = space_artifact(store, images, find_space("pixels"))
    for split in ("pool", "test"):
        expected = images.arrays[split].reshape(-1, 90).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(open_array(pixels, split), expected)


def test_digits_pixels_reach_one(store):
    pixels = open_array(space_artifact(store, load("digits"), find_space("pixels")), "pool")
    assert pixels.dtype == np.float32
    assert pixels.shape == (1438, 64)
    assert (pixels.min(), pixels.max()) == (0, 1)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_agrees_with_scikit_learn(store, images, whiten):
    from sklearn.decomposition import PCA

    spec = parse_space("small", {"name": "pca", "of": "pixels", "dims": 5, "whiten": whiten})
    artifact = space_artifact(store, images, spec)
    pixels = {split: rows.reshape(-1, 90) / 255.0 for split, rows in images.arrays.items()}
    theirs = PCA(5, whiten=whiten, svd_solver="full").fit(pixels["pool"])
    for split in ("pool", "test"):
        ours, expected = open_array(artifact, split), theirs.transform(pixels[split])
        assert ours.dtype == np.float32
        sign = np.sign((ours * expected).sum(0))
        np.testing.assert_allclose(ours * sign, expected, atol=2e-5)
    np.testing.assert_allclose(open_array(artifact, "variances"), theirs.explained_variance_)
    components = open_array(artifact, "components")
    assert (components[np.abs(components).argmax(0), range(5)] > 0).all()


def test_pca_of_other_spaces(store, features, tmp_path):
    np.save("p.npy", np.random.default_rng(0).normal(size=(200, 4)).astype(np.float16))
    np.save("t.npy", np.zeros((12, 4), np.float32))
    spaces = parse_spaces(
        {
            "ssl": {"name": "file", "pool": "p.npy", "test": "t.npy"},
            "ssl2": {"name": "pca", "of": "ssl", "dims": 2},
            "f5": {"name": "pca", "dims": 5},
            "f3": {"name": "pca", "of": "f5", "dims": 3},
        }
    )
    assert not has_space(store, features, spaces["f3"], spaces)
    made = {name: open_array(space_artifact(store, features, spec, spaces), "pool") for name, spec in spaces.items()}
    assert {name: array.shape[1] for name, array in made.items()} == {"ssl": 4, "ssl2": 2, "f5": 5, "f3": 3}
    assert made["ssl"].dtype == np.float16
    # The first components of the first components are these components.
    np.testing.assert_allclose(made["f3"], made["f5"][:, :3], atol=1e-5)
    assert has_space(store, features, spaces["f3"], spaces)
    # Who has the storage needs no file: the content is the identity.
    kept = space_artifact(store, features, spaces["ssl"], spaces).name
    os.unlink("p.npy")
    assert store.open(kept).name == kept


def test_whitening_of_dimensions_that_do_not_vary_is_a_fault(store, folder):
    arrays = toy(rows=50, width=4)
    arrays["train_features"][:, 3] = 1
    np.savez(folder / "flat.npz", **arrays)
    spec = parse_space("w", {"name": "pca", "dims": 4, "whiten": True})
    with pytest.raises(DataError, match="only 3 of 4 dimensions vary; ask for dims: 3 or fewer"):
        space_artifact(store, load("flat"), spec)
    spec = parse_space("w", {"name": "pca", "dims": 4})
    assert np.isfinite(open_array(space_artifact(store, load("flat"), spec), "pool")).all()


THREADS = """
import hashlib, sys, numpy as np
from ray_al.data.pca import fit_pca, project
rows = np.random.default_rng(0).normal(size=(5000, 300)).astype(np.float32) @ np.diag(np.linspace(1, 2, 300))
read = lambda start, stop: rows[start:stop]
pca = fit_pca(read, len(rows), 300, 40)
print(hashlib.sha256(pca.components.tobytes() + b"".join(b.tobytes() for b in project(pca, read, 5000))).hexdigest())
"""


def test_pca_is_the_same_to_the_last_bit_whatever_the_threads():
    digests = set()
    one_cpu = {min(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None
    for threads, cpus in (("1", one_cpu), ("2", None), ("4", None)):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        pin = (lambda cpus=cpus: os.sched_setaffinity(0, cpus)) if cpus else None
        run = subprocess.run(
            [sys.executable, "-c", THREADS], env=environment, preexec_fn=pin, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1


def test_pca_does_not_lose_small_variance_beside_a_large_mean():
    rows = 1e4 + np.random.default_rng(0).normal(size=(3000, 3)) * [1e-2, 1e-3, 1e-4]
    variances = fit_pca(lambda start, stop: rows[start:stop], 3000, 3, 3).variances
    np.testing.assert_allclose(variances, [1e-4, 1e-6, 1e-8], rtol=0.1)


def test_real_mnist_pca(real, store):
    dataset = real("mnist", limit=10000)
    artifact = space_artifact(store, dataset, find_space("pca50"))
    pool = open_array(artifact, "pool")
    assert pool.shape == (10000, 50)
    np.testing.assert_allclose(
        pool.var(0, dtype=np.float64) * 10000 / 9999, open_array(artifact, "variances"), rtol=1e-4
    )
    assert (
        hashlib.sha256((artifact.path / "pool.npy").read_bytes()).hexdigest()
        == artifact.manifest["files"]["pool.npy"]["sha256"]
    )
