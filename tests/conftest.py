"""Shared fixtures: the real datasets, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it skip without it, and say so."""
    folder = os.environ.get("RAY_AL_DATA")
    if not folder or not (Path(folder) / "mnist.npz").exists():
        pytest.skip("RAY_AL_DATA does not name a folder with mnist.npz and cifar10.npz")
    return Path(folder)
