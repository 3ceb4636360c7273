"""Small data in a folder of its own; the real files only where a test asks for them."""

import os
from pathlib import Path

import numpy as np
import pytest

from ray_al.data.datasets import DataError, load_dataset, parse_dataset

REAL = os.environ.get("RAY_AL_DATA")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty RAY_AL_DATA, a cache folder, and the working folder, all temporary."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("RAY_AL_DATA", str(data))
    monkeypatch.setenv("RAY_AL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return data


@pytest.fixture
def real(monkeypatch):
    """A function that loads a dataset of the real RAY_AL_DATA, or skips the test."""

    def load(name, **options):
        if REAL is None or not (Path(REAL) / f"{name}.npz").is_file():
            pytest.skip(f"RAY_AL_DATA does not hold {name}.npz")
        monkeypatch.setenv("RAY_AL_DATA", REAL)
        return load_dataset(parse_dataset({"name": name, **options}))

    return load


def toy(rows=40, classes=4, width=3, seed=0, test=12):
    """Standard arrays of features; classes take turns, so every class has rows."""
    rng = np.random.default_rng(seed)
    return {
        "train_features": rng.normal(size=(rows, width)).astype(np.float32),
        "train_labels": np.arange(rows) % classes,
        "test_features": rng.normal(size=(test, width)).astype(np.float32),
        "test_labels": np.arange(test) % classes,
    }


def toy_images(rows=40, classes=4, shape=(6, 5, 3), test=12):
    rng = np.random.default_rng(1)
    return {
        "train_images": rng.integers(0, 256, (rows, *shape)).astype(np.uint8),
        "train_labels": np.arange(rows) % classes,
        "test_images": rng.integers(0, 256, (test, *shape)).astype(np.uint8),
        "test_labels": np.arange(test) % classes,
    }


def load(value):
    return load_dataset(parse_dataset(value, "here"))


def faults_of(value):
    """All fault messages of a dataset entry, parsed and loaded."""
    with pytest.raises(DataError) as caught:
        load(value)
    return list(caught.value.faults)
