"""Shared fixtures: the real datasets, where they are; and how a run of tests ends."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

import pytest

SESSION = pytest.StashKey[pytest.Session]()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it skip without it, and say so."""
    folder = os.environ.get("RAY_AL_DATA")
    if not folder or not (Path(folder) / "mnist.npz").exists():
        pytest.skip("RAY_AL_DATA does not name a folder with mnist.npz and cifar10.npz")
    return Path(folder)


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without taking the process apart once Ray was in it: a thread of its library may crash meanwhile."""
    if "ray" in sys.modules and SESSION in config.stash:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(config.stash[SESSION].exitstatus))
