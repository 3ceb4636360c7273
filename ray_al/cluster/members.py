"""Trajectories that share a trial: how its config holds them, and what they tell the driver. Imports no Ray."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

REPORT_SECONDS = 1.0


class Member(NamedTuple):
    """A trajectory of a trial; `turn` is its place among all of the run."""

    id: str
    turn: int
    trajectory: str  # TrajectoryConfig.to_json


def write_members(members: Sequence[Member]) -> str:
    """As one text: Tune goes through every list in a config."""
    return json.dumps(members)


def read_members(config: Mapping[str, Any]) -> list[Member]:
    """Of a trial's config."""
    return [Member(*values) for values in json.loads(config["cell"]["members"])]


class Event(NamedTuple):
    """Where a trajectory stands, and what the user has to know. Without an `end` it goes on."""

    id: str
    rounds: int
    accuracy: float
    end: str = ""  # "done"; "failed": on record, for good; "raised": may be tried again
    text: str = ""


def report(
    events: queue.SimpleQueue[Event | BaseException | None], threads: int, tell: Callable[[list[Event]], None]
) -> int:
    """Hand events on, those of REPORT_SECONDS at a time, until so many threads have said None: that they are done.

    Returns:
        How many trajectories raised.

    Raises:
        BaseException: what came in place of an event.
    """
    waiting: dict[str, list[Event]] = {}
    due, raised = time.monotonic() + REPORT_SECONDS, 0
    while threads:
        left = due - time.monotonic()
        if waiting and left <= 0:
            tell([event for own in waiting.values() for event in own])
            waiting, due = {}, time.monotonic() + REPORT_SECONDS
        try:
            event = events.get(timeout=left if waiting else None)
        except queue.Empty:
            continue
        if isinstance(event, BaseException):
            raise event
        if event is None:
            threads -= 1
            continue
        own = waiting.setdefault(event.id, [])
        if own and not own[-1].text:  # the new one says all that it did
            own.pop()
        own.append(event)
        raised += event.end == "raised"
    if waiting:
        tell([event for own in waiting.values() for event in own])
    return raised
