"""The artifact store under several processes: built once, kill -9, a disk that is full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ray_al.data.artifacts import ArtifactStore
from ray_al.storage import Storage
from tests.data.test_artifacts import drafts, visible

SCRIPT = Path(__file__).parent / "builder_process.py"


@pytest.fixture
def start(tmp_path):
    """Start a builder process; what still runs at the end is killed."""
    running = []

    def begin(seconds=0.0, limit=0):
        command = [sys.executable, str(SCRIPT), str(tmp_path / "runs"), str(tmp_path / "log"), str(seconds), str(limit)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs" / "artifacts"


def builds(tmp_path):
    return (tmp_path / "log").read_text().count("built")


def test_of_several_builders_at_once_one_builds(start, tmp_path, root):
    processes = [start(seconds=1.0) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert builds(tmp_path) == 1
    assert len({output[-1] for output in outputs}) == 1
    assert visible(root) == [outputs[0][-1]]
    assert drafts(root) == []


def test_a_killed_builder_frees_the_lock_and_its_draft_is_cleaned(start, tmp_path, root):
    first = start(seconds=60)
    assert first.stdout.readline() == "building\n"
    waiting = start(seconds=0)
    assert len(drafts(root)) == 1
    os.kill(first.pid, signal.SIGKILL)
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert out.startswith("building\n")
    assert builds(tmp_path) == 2
    assert drafts(root) == []
    assert ArtifactStore(Storage.open(tmp_path / "runs")).has("pca", {"dims": 3})


def test_the_draft_of_a_killed_builder_goes_with_the_next_build_of_anything(start, tmp_path, root):
    killed, alive = start(seconds=60), None
    assert killed.stdout.readline() == "building\n"
    killed.kill()
    killed.wait()
    assert len(drafts(root)) == 1
    assert visible(root) == []
    store = ArtifactStore(Storage.open(tmp_path / "runs"))
    store.get_or_build("other", {}, lambda folder: (folder / "x").write_text("x"))
    assert drafts(root) == []
    # The draft of a builder that lives is left alone.
    alive = start(seconds=60)
    assert alive.stdout.readline() == "building\n"
    store.get_or_build("other", {"n": 2}, lambda folder: (folder / "x").write_text("x"))
    assert len(drafts(root)) == 1


def test_a_full_disk_leaves_nothing(start, tmp_path, root):
    process = start(limit=300_000)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "OSError" in errors
    assert drafts(root) == visible(root) == []
    again = start()
    assert again.wait(timeout=30) == 0
