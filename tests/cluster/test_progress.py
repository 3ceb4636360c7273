"""What becomes of trajectories whose trial broke off, and what is shown of a run."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_al.cluster.members import Event, Member, write_members
from ray_al.cluster.progress import Progress
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.results.dataset import LedgerIndex, index, read_sweep
from ray_al.results.ledger import Ledger
from ray_al.storage import Storage


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2}
    return parse_sweep({"name": "x", "storage": str(tmp_path), "axes": axes, "resources": {"retries": 2}})


def trial(*identities: str, number: int = 0, over: bool = True) -> Any:
    """A trial as Tune reports of it."""
    members = write_members([Member(identity, 0, "{}") for identity in identities])
    config = {"cell": {"id": "x", "members": members}}
    return SimpleNamespace(config=config, trial_id=f"{identities}{number}", is_finished=lambda: over)


def progress_of(sweep: Sweep, folder: Storage) -> Progress:
    return Progress(sweep, index(folder), folder, Console(quiet=True))


def tell(progress: Progress, of: Any, *events: Event) -> None:
    progress.on_trial_result(0, [], of, {"events": [list(event) for event in events]})


def recorded(folder: Storage) -> dict[str, tuple[str, int]]:
    """Errors and retries of the failures on record."""
    rows = read_sweep(folder).to_pylist()
    return {row["trajectory_id"]: (row["error"], row["retries"]) for row in rows if row["status"] == "failed"}


def test_one_whose_process_dies_more_often_than_retries_allow_is_a_failure(sweep: Sweep, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path)).child("x")
    progress, one = progress_of(sweep, folder), sweep.trajectories[0]
    for number in range(2):
        progress.on_trial_error(0, [], trial(one.id, number=number))
        assert [*progress.again] == [one]
        progress.again.clear()
        assert progress.failed == {}
        assert Ledger(folder, one.name).load()[0] == []
    progress.on_trial_error(0, [], trial(one.id, number=2))  # once more than retries allow
    assert not progress.again
    assert progress.failed == {one.id: "its process died"}
    assert recorded(folder) == {one.id: ("its process died", 2)}


def test_one_that_tune_lost_is_on_record_as_a_failure(sweep: Sweep, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path)).child("x")
    progress, (one, other, *_) = progress_of(sweep, folder), sweep.trajectories
    progress.done.add(other.id)
    progress.lose([one, other])
    assert progress.failed == {one.id: "Tune lost its trial"}
    assert recorded(folder) == {one.id: ("Tune lost its trial", 0)}


def test_a_death_that_is_told_twice_is_one(sweep: Sweep, tmp_path: Path) -> None:
    progress, one = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories[0]
    for _ in range(3):
        progress.on_trial_error(0, [], trial(one.id))
    assert [*progress.again] == [one]


def test_those_that_shared_a_process_go_on_alone_and_none_is_blamed(sweep: Sweep, tmp_path: Path) -> None:
    progress, (one, two) = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories
    tell(progress, trial(one.id, two.id), Event(one.id, 10, 0.5, "done"), Event(two.id, 3, 0.5))
    progress.on_trial_error(0, [], trial(one.id, two.id))
    assert [*progress.again] == [two]  # the other one had ended
    assert progress._line().startswith("1/2 done, 0 running, 1 open, 0 failed")
    progress.again.clear()
    for number in range(2):  # all retries are left
        progress.on_trial_error(0, [], trial(two.id, number=number))
    assert [*progress.again] == [two, two]
    assert progress.failed == {}


def test_a_trial_that_ends_without_a_word_of_one_of_its_trajectories_lost_it(sweep: Sweep, tmp_path: Path) -> None:
    progress, (one, two) = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories
    tell(progress, trial(one.id, two.id), Event(one.id, 10, 0.5, "done"))
    progress.on_trial_complete(0, [], trial(one.id, two.id))
    assert [*progress.again] == [two]


def test_a_trial_that_tune_ends_in_silence_is_noticed(sweep: Sweep, tmp_path: Path) -> None:
    progress, (one, two) = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories
    for _ in range(2):
        progress.on_step_begin(1, [trial(one.id), trial(two.id, over=False)])
    assert [*progress.again] == [one]
    assert progress.closed == {trial(one.id).trial_id}
    progress.done.add(two.id)
    progress.lose(sweep.trajectories)
    assert progress.failed == {one.id: "Tune lost its trial"}


def test_what_a_trial_raised_is_told_with_its_place_and_tried_again_at_once(sweep: Sweep, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    folder, (one, two) = Storage.open(str(tmp_path)).child("x"), sweep.trajectories
    progress, text = Progress(sweep, index(folder), folder, console), "RuntimeError: CUDA error (own.py:12, in select)"
    both = trial(one.id, two.id)
    tell(progress, both, Event(one.id, 0, 0.5, "raised", "OSError: away"))
    assert [*progress.again] == [one]
    tell(progress, both, Event(two.id, 10, 0.5, "done"))
    progress.on_trial_complete(0, [], both)  # the one that raised is not lost, but elsewhere
    assert [*progress.again] == [one]
    tell(progress, trial(one.id), Event(one.id, 0, 0.5, "raised", text))
    assert console.file.getvalue().count("; going on from its ledger") == 2  # type: ignore[attr-defined]
    assert f"seed 0: {text}; going on" in console.file.getvalue()  # type: ignore[attr-defined]
    tell(progress, trial(one.id, number=1), Event(one.id, 0, 0.5, "raised", text))
    assert progress.failed == {one.id: text}
    assert len(progress.again) == 2


def test_the_pace_is_that_of_rounds_after_the_first_ones(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start-up took 90 s; two trajectories of 10 rounds then need a second for each round."""
    now = 0.0
    monkeypatch.setattr("ray_al.cluster.progress.time", SimpleNamespace(monotonic=lambda: now))
    progress, (one, two) = progress_of(sweep, Storage.open(str(tmp_path)).child("x")), sweep.trajectories
    both = trial(one.id, two.id)
    tell(progress, both, Event(one.id, 0, float("nan")))
    now = 90.0
    assert progress._line() == "0/2 done, 1 running, 1 open, 0 failed"
    for count in range(1, 6):
        now = 90.0 + count
        tell(progress, both, Event(one.id, count, 0.5))
        assert "left" not in progress._line(), "too few rounds to tell"
    now = 96.0
    tell(progress, both, Event(one.id, 6, 0.5))
    assert progress._line().endswith(", 60 rounds/min, 0m14s left")
    assert progress._table().title == "60 rounds/min, 0m14s left"
    now = 110.0
    tell(progress, both, *(Event(each.id, 10, 0.5, "done") for each in (one, two)))
    assert progress._line() == "2/2 done, 0 running, 0 open, 0 failed, 60 rounds/min"


def test_rounds_of_earlier_runs_are_no_pace(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ray_al.cluster.progress.time", SimpleNamespace(monotonic=lambda: now))
    one, two = sweep.trajectories
    held = LedgerIndex(frozenset({two.id}), {one.id: 3})
    progress = Progress(sweep, held, Storage.open(str(tmp_path)).child("x"), Console(quiet=True))
    tell(progress, trial(one.id), Event(one.id, 3, 0.5, text="a part is damaged"))
    now = 60.0
    tell(progress, trial(one.id), Event(one.id, 4, 0.5))
    assert progress._line().endswith("0 failed")
    now = 70.0
    tell(progress, trial(one.id), Event(one.id, 9, 0.5))
    assert progress._line().endswith(", 30 rounds/min, 0m02s left")


def test_what_a_trial_tells_is_shown_and_is_no_failure(sweep: Sweep, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    folder, one = Storage.open(str(tmp_path)).child("x"), sweep.trajectories[0]
    progress = Progress(sweep, index(folder), folder, console)
    tell(progress, trial(one.id), Event(one.id, 0, 0.5, text="/runs/[x]/part is damaged: round 0 runs again"))
    assert console.file.getvalue().endswith("seed 0: /runs/[x]/part is damaged: round 0 runs again\n")  # type: ignore[attr-defined]
    assert progress.failed == {}
