"""Trajectories that share a trial: what one does to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ray_al.cluster import trial as trials
from ray_al.cluster.members import Event, Member, write_members
from ray_al.cluster.trial import Session, events_path, follow, trial
from ray_al.config import parse_sweep

Told = dict[str, list[Event]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a trial tells Tune, by trajectory."""
    found: Told = {}

    def take(result: dict[str, Any]) -> None:
        for values in result["events"]:
            found.setdefault(values[0], []).append(Event(*values))

    monkeypatch.setattr(trials.tune, "report", take)
    return found


def run(monkeypatch: pytest.MonkeyPatch, count: int, together: int, one: Callable[..., bool]) -> None:
    monkeypatch.setattr(trials, "follow", one)
    members = [Member(f"t{number}", number, "{}") for number in range(count)]
    session = Session("", "x", {}, None, together=together)  # type: ignore[arg-type]
    trial({"cell": {"members": write_members(members)}}, session)


def test_so_many_run_at_a_time(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    meet, most, at_once, lock = threading.Barrier(3), [0], [0], threading.Lock()

    def one(member: Member, session: Session, post: Callable[[Event], None]) -> bool:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        meet.wait(30)  # three at a time, or nobody gets on
        with lock:
            at_once[0] -= 1
        post(Event(member.id, 1, 0.5, "done"))
        return True

    run(monkeypatch, 9, 3, one)
    assert most[0] == 3
    assert {name: events[-1].end for name, events in told.items()} == {f"t{number}": "done" for number in range(9)}


def test_a_trial_one_of_which_raised_ends_its_process_when_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    first = threading.Event()

    def one(member: Member, session: Session, post: Callable[[Event], None]) -> bool:
        if member.id == "t0":
            post(Event(member.id, 0, 0.5, "raised", "CUDA error"))
            first.set()
            return False
        assert first.wait(30)
        post(Event(member.id, 1, 0.5, "done"))
        return True

    with pytest.raises(RuntimeError, match="1 trajectories raised"):
        run(monkeypatch, 4, 2, one)
    assert [told[f"t{number}"][-1].end for number in range(4)] == ["raised", "done", "done", "done"]


def test_what_raises_one_after_the_other_does_not_use_up_all(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    def one(member: Member, session: Session, post: Callable[[Event], None]) -> bool:
        post(Event(member.id, 0, 0.5, "raised", "OSError: the storage is away"))
        return False

    with pytest.raises(RuntimeError, match="2 trajectories raised"):
        run(monkeypatch, 64, 2, one)
    assert sorted(told) == ["t0", "t1"]


def test_an_error_before_the_first_round_is_the_trajectorys_own() -> None:
    events: list[Event] = []
    session = Session("", "x", {}, None)  # type: ignore[arg-type]
    assert not follow(Member("t0", 0, "no json"), session, events.append)
    assert [(event.id, event.end) for event in events] == [("t0", "raised")]
    assert "Expecting value" in events[0].text


def test_a_thread_that_is_ended_by_force_ends_the_trial(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    def one(member: Member, session: Session, post: Callable[[Event], None]) -> bool:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(monkeypatch, 8, 1, one)
    assert told == {}


def test_folders_of_events_have_names_that_file_systems_take() -> None:
    axes = {
        "dataset": ["digits"],
        "learner": ["logreg"],
        "strategy": [{"name": "random", "label": "\u00e9" * 300}],
        "seed": 2,
    }
    protocol = {"initial": 10, "batch": 5, "rounds": 2}
    sweep = parse_sweep({"name": "long", "storage": "unused", "axes": axes, "protocol": protocol})
    one, other = (events_path(trajectory) for trajectory in sweep.trajectories)
    assert max(len(part.encode()) for part in one.split("/")) <= 100
    assert "/" + 50 * "\u00e9" + "/" in one
    assert one != other
