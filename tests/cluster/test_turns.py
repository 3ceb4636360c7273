"""Grids of any size on Tune: trials one by one, and forgotten when they are over."""

from __future__ import annotations

import dataclasses
import inspect
import json
import signal
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher

from ray_al.cluster.connect import Stop
from ray_al.cluster.members import Member, read_members
from ray_al.cluster.resources import demand
from ray_al.cluster.turns import HELD, KEPT_TRIALS, Cells, InTurn, Stopping
from ray_al.config import parse_sweep
from ray_al.experiment import TrajectoryConfig
from ray_al.sweep_file import ResourcesSection


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


def cells_of(todo: Sequence[TrajectoryConfig]) -> tuple[Cells, SimpleNamespace]:
    """Two trajectories to a trial, and the progress, by which trials are over and trajectories broke off."""
    resources = ResourcesSection.model_validate({"trial": {"cpus": 1, "together": 2}})
    want = dataclasses.replace(demand(resources, todo, [{"CPU": 2.0}]), shared=2)
    progress = SimpleNamespace(again=deque[TrajectoryConfig](), closed=set[str]())
    return Cells(todo, want, progress), progress


def suggested(cells: Cells) -> list[list[Member]]:
    """All trials at once, none of which is over yet."""
    found = []
    while (config := cells.suggest("x")) is not None:
        found.append(read_members(config))
        assert config["cell"]["id"].startswith(f"{len(found):05d}-{found[-1][0].id}")
    return found


def todo_of(*strategies: str, learner: str = "logreg") -> Sequence[TrajectoryConfig]:
    axes = {"dataset": ["digits"], "learner": [learner], "strategy": [*strategies], "seed": 3}
    return parse_sweep({"name": "x", "axes": axes}).trajectories


def test_trajectories_that_compute_for_themselves_come_one_by_one_in_their_order() -> None:
    todo = todo_of("random", "margin", learner="svc")
    found = suggested(cells_of(todo)[0])
    assert [[member.id for member in trial] for trial in found] == [[t.id] for t in todo]
    assert [trial[0].turn for trial in found] == [*range(6)]
    assert json.loads(found[-1][0].trajectory)["seed"] == todo[-1].seed


def test_light_ones_share_trials_and_keep_their_turn_beside_others() -> None:
    todo = todo_of("random", "tests.cluster.nearest:Nearest", "entropy")
    light = [t.id for t in todo if t.light]
    found = [[member.id for member in trial] for trial in suggested(cells_of(todo)[0])]
    assert [trial for trial in found if len(trial) > 1] == [light[:2], light[2:4], light[4:]]
    assert [id for trial in found for id in trial if id not in light] == [t.id for t in todo if not t.light]
    first = [todo.index(next(t for t in todo if t.id == trial[0])) for trial in found]
    assert first == sorted(first)


def test_what_broke_off_comes_first_and_alone_and_the_end_waits_for_what_may_yet() -> None:
    todo = todo_of("random")
    cells, progress = cells_of(todo)
    assert [member.id for member in read_members(cells.suggest("a"))] == [t.id for t in todo[:2]]
    progress.again.append(todo[0])
    assert [member.id for member in read_members(cells.suggest("b"))] == [todo[0].id]
    assert [member.id for member in read_members(cells.suggest("c"))] == [todo[2].id]
    progress.closed.update("ac")
    assert cells.suggest("d") is None
    progress.again.append(todo[1])
    assert [member.id for member in read_members(cells.suggest("d"))] == [todo[1].id]
    progress.closed.add("b")
    assert cells.suggest("e") is None
    progress.closed.add("d")
    assert cells.suggest("e") == Searcher.FINISHED


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
