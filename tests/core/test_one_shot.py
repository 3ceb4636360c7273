"""One-shot protocols: every budget is a draw of its own, from the whole pool, with a model of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.protocol import Protocol
from ray_al.core.query import PseudoLabels, Selection, SelectionError, ask_pool
from ray_al.core.round import Round, RoundRecord
from ray_al.core.seeds import stream
from ray_al.core.trajectory import Trajectory, run_trajectory
from ray_al.strategies.random import Random
from tests.fakes import Toy, toy_pool


@dataclass
class Guess:
    """Predicts the commonest label of what it was given, and remembers what that was."""

    fits: list[tuple[list[int], int]] = field(default_factory=list)

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Any:
        assert not len(assume)
        self.fits.append((labeled.ids.tolist(), int(rng.integers(10**9))))
        return _Constant(int(np.bincount(labeled.labels).argmax()), pool)


@dataclass
class _Constant:
    label: int
    pool: Pool

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        return np.eye(self.pool.classes)[np.full(self.pool.test_size, self.label)]


@dataclass
class Watch:
    """Random draws; remembers the rounds it was shown."""

    seen: list[Round] = field(default_factory=list)

    def select(self, round: Round) -> Selection:
        self.seen.append(round)
        return Random().select(round)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def drawn(toy: Toy, budgets: tuple[int, ...], done: list[RoundRecord] | None = None, **changes: Any) -> Any:
    base = Trajectory(
        Watch(), Guess(), Protocol.one_shot(budgets or (1,)), 3, toy.pool, TruthOracle(toy.labels), toy.test_labels,
        lambda model: None,
    )  # fmt: skip
    t = replace(base, **changes)
    return t, [*(done or []), *run_trajectory(t, done or [])]


def test_every_draw_sees_the_whole_pool_and_no_model(toy: Toy) -> None:
    t, records = drawn(toy, (5, 12, 40))
    assert [r.round for r in records] == [0, 1, 2]
    assert [r.labels for r in records] == [r.n_labeled for r in records] == [5, 12, 40]
    assert [len(r.asked_ids) for r in records] == [int(r.class_counts.sum()) for r in records] == [5, 12, 40]
    for view, budget in zip(t.strategy.seen, (5, 12, 40), strict=True):
        assert (view.index, view.batch, view.model, len(view.labeled)) == (-1, budget, None, 0)
        assert np.array_equal(view.unlabeled, np.arange(toy.pool.size))
    assert {view.seed for view in t.strategy.seen} == {3}
    rounds, _ = drawn(toy, (), protocol=Protocol(0, False, 4, 2), seed=4)
    assert [view.seed for view in rounds.strategy.seen] == [4, 4]
    assert [ids for ids, _ in t.learner.fits] == [r.asked_ids.tolist() for r in records]
    assert not any(r.fit_shared for r in records)


def test_draws_are_not_nested_and_a_budgets_draw_is_its_own(toy: Toy) -> None:
    _, records = drawn(toy, (10, 20, 30))
    first, second, third = (set(r.asked_ids.tolist()) for r in records)
    assert not first <= second
    assert not second <= third
    alone, (record,) = drawn(toy, (20,))
    assert np.array_equal(record.asked_ids, records[1].asked_ids)
    assert alone.learner.fits[0][1] == stream(3, "init-weights", 20).integers(10**9)
    _, (other,) = drawn(toy, (20,), seed=4)
    assert not np.array_equal(other.asked_ids, record.asked_ids)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_cut_run_draws_what_is_left_and_fits_no_model_again(toy: Toy, cut: int) -> None:
    _, whole = drawn(toy, (5, 12, 40))
    t, again = drawn(toy, (5, 12, 40), whole[:cut])
    assert [r.asked_ids.tolist() for r in again] == [r.asked_ids.tolist() for r in whole]
    assert [r.accuracy for r in again] == [r.accuracy for r in whole]
    assert len(t.learner.fits) == 3 - cut


@dataclass
class Fewer:
    def select(self, round: Round) -> Selection:
        return ask_pool(round.unlabeled[: round.batch - 1])


def test_a_draw_of_fewer_labels_than_its_budget_ends_the_run(toy: Toy) -> None:
    with pytest.raises(SelectionError, match="a one-shot draw of 5 labels asks for 4"):
        drawn(toy, (5,), strategy=Fewer())


@given(st.lists(st.integers(1, 80), min_size=1, max_size=6, unique=True), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_budgets(budgets: list[int], seed: int) -> None:
    toy = toy_pool()
    _, records = drawn(toy, tuple(sorted(budgets)), seed=seed)
    assert [r.labels for r in records] == sorted(budgets)
    assert all(len(np.unique(r.asked_ids)) == r.labels for r in records)


def test_how_a_protocol_is_called_and_told_apart() -> None:
    assert Protocol.one_shot((20, 40, 200)).label == "one-shot 20..200"
    assert Protocol.one_shot((20,)).label == "one-shot 20"
    assert Protocol.one_shot((20, 40)).identity == {"budgets": [20, 40]}
    assert Protocol.one_shot((20, 40)).total_labels == 40
    plain = Protocol(10, True, 5, 3)
    assert plain.identity == {"initial": 10, "balanced": True, "batch": 5, "rounds": 3}, "older ids hang on it"
