"""What becomes of trajectories whose process died."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_al.cluster import sweep as running
from ray_al.cluster.progress import Progress
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.results.dataset import index
from ray_al.results.ledger import Ledger
from ray_al.storage import Storage


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2}
    return parse_sweep({"name": "x", "storage": str(tmp_path), "axes": axes, "resources": {"retries": 2}})


def trial(identity: str, failures: int) -> Any:
    """A trial that Tune has ended."""
    return SimpleNamespace(
        config={"cell": {"id": identity}},
        num_failures=failures,
        get_error=lambda: None,
        get_pickled_error=lambda: None,
    )


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
