"""What the trajectories of one trial tell the driver."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

import pytest

from ray_al.cluster import members
from ray_al.cluster.members import Event, Member, read_members, report, write_members


def test_members_are_read_as_written() -> None:
    some = [Member("a", 3, '{"seed": 1}'), Member("b", 4, "{}")]
    assert read_members({"cell": {"members": write_members(some)}}) == some


def told_of(events: list[Event | BaseException], threads: int = 1) -> tuple[list[list[Event]], int]:
    """What is handed on, when all events are there from the start; and how many raised."""
    waiting, told = queue.SimpleQueue[Event | BaseException | None](), list[list[Event]]()
    for event in [*events, *[None] * threads]:
        waiting.put(event)
    raised = report(waiting, threads, told.append)
    return told, raised


def test_only_the_last_word_of_each_is_handed_on_but_every_text() -> None:
    events: list[Event | BaseException] = [
        Event("a", 1, 0.1),
        Event("b", 1, 0.2),
        Event("a", 1, 0.1, text="damaged"),
        Event("a", 2, 0.3),
        Event("a", 3, 0.4),
        Event("b", 2, 0.5, "done"),
        Event("a", 4, 0.6, "raised", "why"),
    ]
    (told,), raised = told_of(events, 2)
    assert told == [Event("a", 1, 0.1, text="damaged"), Event("a", 4, 0.6, "raised", "why"), Event("b", 2, 0.5, "done")]
    assert raised == 1
    assert told_of([]) == ([], 0)


def test_what_waits_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trajectory that is long over is not kept back by one that says nothing."""
    monkeypatch.setattr(members, "REPORT_SECONDS", 0.01)
    waiting, told, heard = queue.SimpleQueue[Event | BaseException | None](), list[list[Event]](), threading.Event()

    def tell(events: list[Event]) -> None:
        told.append(events)
        heard.set()

    waiting.put(Event("a", 1, 0.1, "done"))
    pump = threading.Thread(target=report, args=(waiting, 1, tell))
    pump.start()
    assert heard.wait(30)
    waiting.put(Event("b", 1, 0.2, "done"))
    waiting.put(None)
    pump.join(30)
    assert told == [[Event("a", 1, 0.1, "done")], [Event("b", 1, 0.2, "done")]]


def test_events_come_no_more_often_than_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def read() -> float:
        nonlocal now
        now += 0.01  # a round of each of three takes so long
        return now

    monkeypatch.setattr(members, "time", SimpleNamespace(monotonic=read))
    told, _ = told_of([Event(name, number + 1, 0.5) for number in range(1000) for name in "abc"])
    assert 20 <= len(told) <= 3000 * 0.02 / members.REPORT_SECONDS + 2
    assert [event.rounds for event in told[-1]] == [1000, 1000, 1000]


def test_a_thread_that_breaks_ends_the_trial() -> None:
    with pytest.raises(SystemExit):
        told_of([Event("a", 1, 0.1), SystemExit(3)])
