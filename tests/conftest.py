"""Shared fixtures: the real datasets, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers one gets all tests that start Ray, one after another; the others do the rest meanwhile."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group("slow"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it skip without it, and say so."""
    folder = os.environ.get("RAY_AL_DATA")
    if not folder or not (Path(folder) / "mnist.npz").exists():
        pytest.skip("RAY_AL_DATA does not name a folder with mnist.npz and cifar10.npz")
    return Path(folder)
