"""Tune with a grid of any size: trials are handed to it one by one, and taken off its hands when they are over."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ray_al.cluster.connect import Stop
from ray_al.cluster.members import Member, write_members
from ray_al.cluster.resources import Demand
from ray_al.experiment import TrajectoryConfig

KEPT_TRIALS = 256
# Where Tune holds on to finished trials, with no public way to let go. Named otherwise, they would only cost memory.
HELD = ("_stopped_trials", "_failed_trials", "_trials_to_cache")


class Trials(Protocol):
    """What became of trials: those that are over, and trajectories that broke off."""

    closed: set[str]
    again: deque[TrajectoryConfig]


class Cells(Searcher):
    """Suggests trials, each a config of plain values: light trajectories several together, every other one alone.

    Trajectories come in their order. One whose trial broke off comes before those that are not suggested yet, alone.
    """

    def __init__(self, todo: Sequence[TrajectoryConfig], want: Demand, progress: Trials) -> None:
        super().__init__()
        self._want, self._progress = want, progress
        self._turns = {trajectory.id: turn for turn, trajectory in enumerate(todo)}
        self._light = deque(t for t in todo if t.light)
        self._heavy = deque(t for t in todo if not t.light)
        self._trials, self._out = 0, set[str]()  # suggested; and not known to be over

    def suggest(self, trial_id: str) -> Any:
        chosen = self._choose()
        if not chosen:  # a trial that is not over may break off, and leave something to do again
            self._out -= self._progress.closed
            return None if self._out else Searcher.FINISHED
        self._trials += 1
        self._out.add(trial_id)
        more = f"+{len(chosen) - 1}" if len(chosen) > 1 else ""
        members = [Member(t.id, self._turns[t.id], t.to_json()) for t in chosen]
        return {"cell": {"id": f"{self._trials:05d}-{chosen[0].id}{more}", "members": write_members(members)}}

    def _choose(self) -> list[TrajectoryConfig]:
        if self._progress.again:
            return [self._progress.again.popleft()]
        if self._heavy and (not self._light or self._turn(self._heavy) < self._turn(self._light)):
            return [self._heavy.popleft()]
        return [self._light.popleft() for _ in range(self._want.share(len(self._light)))]

    def _turn(self, some: deque[TrajectoryConfig]) -> int:
        return self._turns[some[0].id]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The progress knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run goes on from its ledger, never from Tune's own files."""


class InTurn(FIFOScheduler):
    """Runs trials in their order, and forgets those that are over.

    Tune walks its list of trials at every event and keeps all it knows of each to the end: 30 kB, and a driver that
    slows down. What a trial had to say is in its ledger by then.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        trials = tune_controller.get_trials()
        if len(trials) > KEPT_TRIALS:
            _forget(trials, getattr(tune_controller, "_tune_controller", None))
        return super().choose_trial_to_run(tune_controller)


def _forget(trials: list[Any], controller: Any) -> None:
    over = {trial for trial in trials if trial.is_finished()}
    # The last one stays: Tune loads all of them from its files when it has none at the end.
    trials[:] = [trial for trial in trials if trial not in over] or trials[-1:]
    over.difference_update(trials)
    for held in HELD:
        getattr(controller, held, set()).difference_update(over)


class Silent(TrialProgressCallback):
    """Takes the place of Tune's own printer of results, which keeps every trial and its result."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        pass

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass


class Stopping(Callback):
    """Ends the run before Tune's next step once it was asked to stop."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._stop.check()
