"""What becomes of trajectories whose process died."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_al.cluster import sweep as running
from ray_al.cluster.progress import Progress
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.results.dataset import LedgerIndex, index
from ray_al.results.ledger import Ledger
from ray_al.storage import Storage


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2}
    return parse_sweep({"name": "x", "storage": str(tmp_path), "axes": axes, "resources": {"retries": 2}})


def trial(identity: str, failures: int = 0) -> Any:
    """A trial as Tune reports of it."""
    return SimpleNamespace(config={"cell": {"id": identity}}, num_failures=failures)


def progress_of(sweep: Sweep, folder: Storage) -> Progress:
    return Progress(sweep, index(folder), folder, Console(quiet=True))


def test_a_trial_that_tune_ends_before_its_retries_are_used_up_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path)).child("x")
    progress, one = progress_of(sweep, folder), sweep.trajectories[0]
    for _ in range(2):
        progress.on_trial_error(0, [], trial(one.id, 2))
        assert progress.given_up_early() == [one]
        assert progress.given_up_early() == []
        assert progress.failed == {}
        assert Ledger(folder, one.name).load()[0] == []
    progress.on_trial_error(0, [], trial(one.id, 2))  # once more than retries allow
    assert progress.given_up_early() == []
    assert progress.failed == {one.id: "its process died"}


def test_a_trial_that_dies_more_often_than_retries_allow_is_a_failure(sweep: Sweep, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path)).child("x")
    progress, one = progress_of(sweep, folder), sweep.trajectories[0]
    progress.on_trial_error(0, [], trial(one.id, 3))
    assert progress.given_up_early() == []
    assert progress.failed == {one.id: "its process died"}


def test_a_run_goes_over_what_was_given_up_early_once_more(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[list[str]] = []

    def fit(todo: Any, session: Any, want: Any, retries: int, progress: Progress, stop: Any) -> None:
        rounds.append([t.id for t in todo])
        if len(rounds) == 1:
            progress.on_trial_error(0, [], trial(todo[1].id, 2))

    for name in ("demand", "cluster_nodes", "_build_artifacts", "spread", "machines", "Session"):
        monkeypatch.setattr(running, name, lambda *_, **__: SimpleNamespace(values=list, scorer_cpus=0, scorer_gpus=0))
    monkeypatch.setattr(running, "start_services", lambda *_: (None, ()))
    monkeypatch.setattr(running, "cluster_nodes", list)
    monkeypatch.setattr(running, "_fit", fit)
    run = running._Run(sweep, Console(quiet=True), frozenset())
    progress = progress_of(sweep, Storage.open(str(tmp_path)).child("x"))
    run._trials(sweep.trajectories, progress, running.Clock(), running.Stop())
    assert rounds == [[t.id for t in sweep.trajectories], [sweep.trajectories[1].id]]


def test_what_a_retried_trial_raised_is_told_with_its_place(sweep: Sweep, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    folder, one = Storage.open(str(tmp_path)).child("x"), sweep.trajectories[0]
    progress = Progress(sweep, index(folder), folder, console)
    for text in ("OSError: away", "RuntimeError: CUDA error (own.py:12, in select)"):
        progress.on_trial_result(0, [], trial(one.id), reported(0, "raised", text))
        progress.on_trial_recover(0, [], trial(one.id))
    assert console.file.getvalue().count("; going on from its ledger") == 2  # type: ignore[attr-defined]
    progress.on_trial_recover(0, [], trial(one.id))  # killed, the next time
    assert "its process died; going on" in console.file.getvalue()  # type: ignore[attr-defined]
    progress.on_trial_result(0, [], trial(one.id), reported(0, "raised", text))
    progress.on_trial_error(0, [], trial(one.id, 3))
    assert progress.failed == {one.id: text}


def reported(rounds: int, end: str = "", error: str = "") -> dict[str, Any]:
    return {"rounds": rounds, "accuracy": 0.5, "end": end, "error": error}


def test_the_pace_is_that_of_rounds_after_the_first_ones(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start-up took 90 s; two trajectories of 10 rounds then need a second for each round."""
    now = 0.0
    monkeypatch.setattr("ray_al.cluster.progress.time", SimpleNamespace(monotonic=lambda: now))
    progress, (one, two) = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories
    progress.on_trial_start(0, [], trial(one.id))
    now = 90.0
    assert progress._line() == "0/2 done, 1 running, 1 open, 0 failed"
    for count in range(1, 6):
        now = 90.0 + count
        progress.on_trial_result(0, [], trial(one.id), reported(count))
        assert "left" not in progress._line(), "too few rounds to tell"
    now = 96.0
    progress.on_trial_result(0, [], trial(one.id), reported(6))
    assert progress._line().endswith(", 60 rounds/min, 0m14s left")
    assert progress._table().title == "60 rounds/min, 0m14s left"
    now = 110.0
    for each in (one, two):
        progress.on_trial_result(0, [], trial(each.id), reported(10, "done"))
    assert progress._line() == "2/2 done, 0 running, 0 open, 0 failed, 60 rounds/min"


def test_rounds_of_earlier_runs_are_no_pace(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ray_al.cluster.progress.time", SimpleNamespace(monotonic=lambda: now))
    one, two = sweep.trajectories
    held = LedgerIndex(frozenset({two.id}), {one.id: 3})
    progress = Progress(sweep, held, Storage.open(str(tmp_path)).child("x"), Console(quiet=True))
    progress.on_trial_result(0, [], trial(one.id), reported(3, error="a part is damaged"))
    now = 60.0
    progress.on_trial_result(0, [], trial(one.id), reported(4))
    assert progress._line().endswith("0 failed")
    now = 70.0
    progress.on_trial_result(0, [], trial(one.id), reported(9))
    assert progress._line().endswith(", 30 rounds/min, 0m02s left")


def test_what_a_trial_tells_is_shown_and_is_no_failure(sweep: Sweep, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    folder, one = Storage.open(str(tmp_path)).child("x"), sweep.trajectories[0]
    progress = Progress(sweep, index(folder), folder, console)
    progress.on_trial_result(0, [], trial(one.id), reported(0, error="/runs/[x]/part is damaged: round 0 runs again"))
    assert console.file.getvalue().endswith("seed 0: /runs/[x]/part is damaged: round 0 runs again\n")  # type: ignore[attr-defined]
    assert progress.failed == {}
