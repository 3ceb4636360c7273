"""Tune with a grid of any size: cells are handed to it one by one, and finished trials are taken off its hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ray_al.cluster.connect import Stop
from ray_al.experiment import TrajectoryConfig

KEPT_TRIALS = 256
# Where Tune holds on to finished trials, with no public way to let go. Named otherwise, they would only cost memory.
HELD = ("_stopped_trials", "_failed_trials", "_trials_to_cache")


class Cells(Searcher):
    """Suggests the trajectories in their order, each as a config of plain values.

    A grid search does the same, but copies the whole grid for every cell.
    """

    def __init__(self, todo: Sequence[TrajectoryConfig]) -> None:
        super().__init__()
        self._todo = todo
        self._next = 0

    def suggest(self, trial_id: str) -> Any:
        if self._next == len(self._todo):
            return Searcher.FINISHED
        turn, trajectory = self._next, self._todo[self._next]
        self._next += 1
        return {"cell": {"id": trajectory.id, "turn": turn, "trajectory": trajectory.to_json()}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """What comes next does not depend on results."""

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
