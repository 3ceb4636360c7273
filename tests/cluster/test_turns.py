"""Grids of any size on Tune: cells one by one, finished trials forgotten."""

from __future__ import annotations

import inspect
import json
import signal
from types import SimpleNamespace

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher

from ray_al.cluster.connect import Stop
from ray_al.cluster.turns import HELD, KEPT_TRIALS, Cells, InTurn, Stopping
from ray_al.config import parse_sweep


class Trial:
    def __init__(self, status: str) -> None:
        self.status = status

    def is_finished(self) -> bool:
        return self.status in ("TERMINATED", "ERROR")


def controller(statuses: list[str]) -> SimpleNamespace:
    """What a scheduler is given: a wrapper whose list is Tune's own."""
    trials = [Trial(status) for status in statuses]
    inner = SimpleNamespace(**{held: set(trials) for held in HELD})
    return SimpleNamespace(get_trials=lambda: trials, _tune_controller=inner)


def test_cells_come_in_their_order_and_end() -> None:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random", "margin"], "seed": 3}
    todo = parse_sweep({"name": "x", "axes": axes}).trajectories
    cells = Cells(todo)
    for turn, trajectory in enumerate(todo):
        cell = cells.suggest(f"trial{turn}")["cell"]
        assert (cell["turn"], cell["id"]) == (turn, trajectory.id)
        assert json.loads(cell["trajectory"])["seed"] == trajectory.seed
    assert cells.suggest("late") == Searcher.FINISHED


def test_finished_trials_are_forgotten_and_the_others_run_in_turn() -> None:
    tune = controller(["TERMINATED", "ERROR"] * KEPT_TRIALS + ["RUNNING", "PENDING", "PENDING"])
    first, second = tune.get_trials()[-2:]
    running = tune.get_trials()[-3]
    assert InTurn().choose_trial_to_run(tune) is first
    assert tune.get_trials() == [running, first, second]
    for held in HELD:
        assert getattr(tune._tune_controller, held) == {running, first, second}


def test_the_last_trial_stays_and_short_grids_are_left_alone() -> None:
    over = controller(["TERMINATED"] * (KEPT_TRIALS + 1))
    last = over.get_trials()[-1]
    assert InTurn().choose_trial_to_run(over) is None
    assert over.get_trials() == [last]
    short = controller(["TERMINATED"] * KEPT_TRIALS)
    InTurn().choose_trial_to_run(short)
    assert len(short.get_trials()) == KEPT_TRIALS


def test_tune_still_holds_trials_by_these_names() -> None:
    """A release of Ray that renames them would let the driver grow with the grid, silently."""
    source = inspect.getsource(TuneController.__init__)
    assert all(f"self.{held}" in source for held in HELD)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_destructor_lost_ends_the_run_at_the_next_step(number: signal.Signals) -> None:
    class Unlucky:
        def __del__(self) -> None:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with Stop().listening() as stop:
        callback = Stopping(stop)
        callback.on_step_begin(1, [])
        Unlucky()  # KeyboardInterrupt is raised in here, and goes nowhere
        with pytest.raises(KeyboardInterrupt):
            callback.on_step_begin(2, [])
    assert signal.getsignal(number) == before
