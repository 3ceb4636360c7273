"""The command line on a real local cluster: own methods, failures, interruptions, other learners, real data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_al import load_results

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent


def ray_al(folder: Path, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_al", *words]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def write(folder: Path, file: str = "x.yaml", **sections: Any) -> Path:
    raw = {"name": "x", "protocol": {"initial": 10, "batch": 5, "rounds": 3}, **sections}
    (folder / file).write_text(yaml.safe_dump(raw))
    return folder / file


def axes(**changes: Any) -> dict[str, Any]:
    return {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2, **changes}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def test_the_documented_examples_of_own_methods_run(tmp_path: Path) -> None:
    strategy, learner = blocks("docs/own_methods.md", "python")
    assert len([line for line in strategy.splitlines() if line.strip()]) <= 15
    (tmp_path / "my_methods.py").write_text(strategy)
    (tmp_path / "my_learner.py").write_text(learner)
    given = yaml.safe_load(blocks("docs/own_methods.md", "yaml")[0])["axes"]["strategy"]
    write(tmp_path, axes=axes(strategy=given, learner=["logreg", "my_learner:NearestCentroid"], seed=1))
    done = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert done.returncode == 0, done.stdout + done.stderr
    frame = load_results(tmp_path / "runs" / "x")
    assert set(frame.strategy) == {"random", "subset_entropy"}
    assert set(frame.learner) == {"logreg", "my_learner:NearestCentroid"}
    assert (frame.groupby("trajectory_id").labels.max() == 20).all()
    checked = ray_al(tmp_path, "verify", "runs/x", "--sample", "4")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("3 rounds equal, ids and metrics") == 4


BROKEN = """
import os
from dataclasses import dataclass
from ray_al.core.query import ask_pool

@dataclass(frozen=True)
class Fragile:
    neighbor_index = True
    def select(self, round):
        if round.index == 0 and not os.path.exists("mended"):
            if len(round.rng.bit_generator.seed_seq.entropy) and round.rng.bit_generator.seed_seq.entropy[0] == 1:
                return ask_pool(round.labeled.ids[:1])
            if round.rng.bit_generator.seed_seq.entropy[0] == 2:
                os._exit(7)
            if round.rng.bit_generator.seed_seq.entropy[0] == 4:
                raise RuntimeError("no luck\\nand more")
        queries = round.pool.inputs("pixels", round.labeled.ids[: round.take])
        return ask_pool(round.neighbors.nearest("pixels", queries, round.labeled.ids))
"""


@pytest.mark.parametrize("light", [False, True], ids=["a trial each", "sharing trials"])
def test_failures_are_rows_and_the_rest_goes_on(tmp_path: Path, light: bool) -> None:
    """Seed 1 asks for a labeled id, the process of seed 2 dies, seed 4 may have been the machine's fault; all are
    recorded, and mended code finishes them."""
    (tmp_path / "own.py").write_text(BROKEN.replace("neighbor_index = True", f"neighbor_index, light = True, {light}"))
    write(tmp_path, axes=axes(strategy=["own:Fragile"], seed=5), resources={"retries": 1})
    run = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "2 of 5 trajectories done" in run.stdout
    assert "SelectionError" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    frame = load_results(tmp_path / "runs" / "x")
    failed = frame[frame.status == "failed"].set_index("seed")
    assert "is not an unlabeled item" in failed.loc[1].error
    line = BROKEN.splitlines().index('                raise RuntimeError("no luck\\nand more")') + 1
    assert failed.loc[4].error == f"RuntimeError: no luck (own.py:{line}, in select)"
    assert (failed.loc[1]["round"], failed.loc[1].retries) == (1, 0)
    assert (failed.loc[2]["round"], failed.loc[2].retries) == (1, 1)
    assert (failed.loc[4]["round"], failed.loc[4].retries) == (1, 1)
    assert frame[frame.status == "ok"].groupby("seed").size().to_dict() == {0: 3, 1: 1, 2: 1, 3: 3, 4: 1}
    status = ray_al(tmp_path, "status", "runs/x")
    assert "SelectionError" in status.stdout
    (tmp_path / "mended").touch()
    again = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert again.returncode == 0, again.stdout + again.stderr
    frame = load_results(tmp_path / "runs" / "x")
    assert frame.groupby("seed").size().to_dict() == dict.fromkeys(range(5), 3)
    assert (frame.status == "ok").all()


PATIENT = """
import os, time
from dataclasses import dataclass
from ray_al.core.query import ask_pool

@dataclass(frozen=True)
class Patient:
    def select(self, round):
        while round.index == 2 and os.path.exists("wait"):
            open("waiting", "w").close()
            time.sleep(0.05)
        return ask_pool(round.rng.permutation(round.unlabeled)[: round.take])
"""


def test_interrupting_a_run(tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end a run cleanly; a second run at the same time is refused; the same command finishes."""
    (tmp_path / "own.py").write_text(PATIENT)
    (tmp_path / "wait").touch()
    long = {"initial": 10, "batch": 10, "rounds": 6}
    write(tmp_path, axes=axes(strategy=["own:Patient", "badge"], seed=4), protocol=long)
    command = [sys.executable, "-m", "ray_al", "run", "x.yaml", "--no-dashboard"]
    for number in (signal.SIGINT, signal.SIGTERM):
        (tmp_path / "waiting").unlink(missing_ok=True)
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 100
        while process.poll() is None and not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if number == signal.SIGINT:
            second = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
            assert second.returncode == 2
            assert f"is going on (process {process.pid})" in second.stderr
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 130, output
        assert "the same command goes on from there" in output
        assert "Traceback" not in output
    (tmp_path / "wait").unlink()
    done = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_results(tmp_path / "runs" / "x").groupby("trajectory_id").size().tolist() == [6] * 8
    write(tmp_path, "y.yaml", name="y", axes=axes(strategy=[{"name": "badge", "label": "b"}]), protocol=long)
    taken = ray_al(tmp_path, "run", "y.yaml", "--no-dashboard")
    assert "2 trajectories were done by other sweeps or earlier" in taken.stdout
    assert "Ray dashboard" not in taken.stdout, "a cluster was started for nothing"
    assert set(load_results(tmp_path / "runs" / "y").strategy) == {"b"}


def test_svc_and_cnn_with_every_strategy_that_reads_their_heads(tmp_path: Path) -> None:
    tiny_cnn = {"name": "cnn", "epochs": 1, "width": 4, "label": "cnn"}
    strategies = ["margin", "kcenter_greedy", "badge", {"name": "typiclust", "space": "pca8"}, "full"]
    write(
        tmp_path,
        axes=axes(learner=[tiny_cnn, "svc"], strategy=strategies, seed=1),
        exclude=[{"learner": "cnn", "strategy": "full"}],
        protocol={"initial": 20, "batch": 10, "rounds": 2},
    )
    done = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert done.returncode == 0, done.stdout + done.stderr
    frame = load_results(tmp_path / "runs" / "x")
    assert frame.groupby("learner").trajectory_id.nunique().to_dict() == {"cnn": 4, "svc": 5}
    assert frame[(frame.strategy == "full")].accuracy.iloc[0] > 0.95
    checked = ray_al(tmp_path, "verify", "runs/x", "--sample", "9")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_mnist_and_cifar10(tmp_path: Path, real_data: Path) -> None:
    """Real data: images as pixels and as PCA, and features from a file of their own."""
    write(
        tmp_path,
        axes=axes(
            dataset=["mnist", {"name": "cifar10", "limit": 5000}, "cifar10_effnetlite0_pca256"],
            learner=["logreg", {"name": "logreg", "space": "pca64"}],
            strategy=["random", "margin", "kcenter_greedy", "badge"],
            seed=1,
        ),
        protocol={"initial": 50, "batch": 50, "rounds": 3},
    )
    plan = ray_al(tmp_path, "plan", "x.yaml")
    assert "missing: will be built" in plan.stdout
    assert not (tmp_path / "runs").exists()
    done = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert done.returncode == 0, done.stdout + done.stderr
    frame = load_results(tmp_path / "runs" / "x")
    last = frame[frame.labels == 150].groupby("dataset").accuracy.mean()
    assert last["mnist"] > 0.75
    assert last["cifar10_effnetlite0_pca256"] > 0.5
    assert "missing" not in ray_al(tmp_path, "plan", "x.yaml").stdout


BAD = {
    "unknown names": ({"axes": axes(strategy=["entrpy"], dataset=["digit"])}, ["did you mean 'entropy'", "'digits'"]),
    "a batch over the pool": (
        {"axes": axes(), "protocol": {"batch": 5000, "rounds": 1}},
        ["5,000 is more than the pool"],
    ),
    "more gpus than present": ({"axes": axes(), "resources": {"trial": {"gpus": 9}}}, ["9 GPUs; there are"]),
    "more cpus than present": ({"axes": axes(), "resources": {"trial": {"cpus": 4096}}}, ["4096 CPUs"]),
    "a missing file": (
        {"axes": axes(dataset=[{"name": "arrays", "features": "none.npy", "labels": "none.npy"}])},
        ["none.npy"],
    ),
    "storage in a file": ({"axes": axes(), "storage": "x.yaml/runs"}, ["storage: cannot write to 'x.yaml/runs'"]),
    "faults of file, storage and machine together": (
        {"axes": axes(strategy=["entrpy"]), "storage": "/proc/x", "resources": {"trial": {"gpus": 99}}},
        ["'entrpy'", "storage: cannot write to '/proc/x'", "99 GPUs"],
    ),
    "storage of an unknown kind": ({"axes": axes(), "storage": "gopher://x/y"}, ["cannot open storage 'gopher://x/y'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_each_and_nothing_starts(tmp_path: Path, case: str) -> None:
    sections, messages = BAD[case]
    write(tmp_path, **sections)
    answer = ray_al(tmp_path, "run", "x.yaml")
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    for message in messages:
        assert message in answer.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.yaml"]


@pytest.mark.parametrize("words", [["status"], ["results"], ["report"], ["verify"]], ids=lambda w: w[0])
def test_folders_that_hold_no_sweep(tmp_path: Path, words: list[str]) -> None:
    answer = ray_al(tmp_path, *words, "nowhere")
    assert answer.returncode == 2
    assert "'nowhere' is not a sweep's folder" in answer.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "runs"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_trajectories_with_a_clear_error(tmp_path: Path, small_disk: Path) -> None:
    write(tmp_path, axes=axes(seed=1))
    assert ray_al(tmp_path, "run", "x.yaml", "--no-dashboard").returncode == 0
    write(tmp_path, axes=axes(seed=3))
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - 36_864))
    full = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert full.returncode == 1, full.stdout + full.stderr
    assert "No space left on device" in full.stdout
    assert "Traceback" not in full.stdout + full.stderr
    assert not [p for p in small_disk.rglob(".*") if p.is_file() and not p.name.endswith(".lock")]
    assert len(load_results(small_disk / "x").query("seed == 0")) == 3
    (small_disk / "filler").unlink()
    again = ray_al(tmp_path, "run", "x.yaml", "--no-dashboard")
    assert again.returncode == 0, again.stdout + again.stderr
    assert load_results(small_disk / "x").groupby("seed").size().to_dict() == {0: 3, 1: 3, 2: 3}
