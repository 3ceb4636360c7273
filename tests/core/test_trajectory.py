"""The loop: budgets, initial sets, resumption, and the selections it refuses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.metrics import classification_metrics
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.query import PoolQuery, PseudoLabels, Selection, SelectionError, SyntheticQuery, ask_pool
from ray_al.core.round import Round, RoundRecord
from ray_al.core.seeds import PURPOSES, stream
from ray_al.core.trajectory import Protocol, Trajectory, initial_ids, run_trajectory
from tests.fakes import Toy, toy_pool


@dataclass
class NearestMean:
    """A tiny learner. With `carry` it remembers how often it was fitted, as a warm-started network would."""

    carry: bool = False
    fits: int = 0

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Any:
        self.fits += 1
        ids, labels = np.r_[labeled.ids, assume.ids], np.r_[labeled.labels, assume.labels]
        x = pool.inputs("pixels", ids)
        means = np.stack(
            [x[labels == c].mean(0) if (labels == c).any() else np.full(x.shape[1], 9.0) for c in range(4)]
        )
        return _Means(means + rng.normal(0, 1e-3, means.shape) + (self.fits * 0.01 if self.carry else 0), pool)


class Carrying(NearestMean):
    def state(self) -> bytes:
        return str(self.fits).encode()

    def restore(self, state: bytes, pool: Pool) -> Any:
        self.fits = int(state)
        return None  # the strategy of this test needs no model


@dataclass
class _Means:
    means: np.ndarray
    pool: Pool

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        x = self.pool.inputs("pixels", ids, split)
        score = -((x[:, None] - self.means) ** 2).sum(2)
        score = np.exp(score - score.max(1, keepdims=True))
        return score / score.sum(1, keepdims=True)


@dataclass
class Uncertain:
    """Asks for the least sure, and assumes the surest: a strategy that needs the model and gives pseudo-labels."""

    def select(self, round: Round) -> Selection:
        if round.model is None:
            return ask_pool(round.rng.permutation(round.unlabeled)[: round.batch])
        top = round.model.output("probs", round.unlabeled).max(1)
        order = round.unlabeled[np.argsort(top, kind="stable")]
        sure = order[-2:]
        assume = PseudoLabels(sure, round.model.output("probs", sure).argmax(1))
        return Selection((PoolQuery(order[: round.batch]),), assume, {"scores": np.sort(top)[: round.batch]})


def _trajectory(toy: Toy, **changes: Any) -> Trajectory:
    base = Trajectory(
        Uncertain(), NearestMean(), Protocol(8, True, 4, 5), 3, toy.pool, TruthOracle(toy.labels), toy.test_labels,
        lambda model: None,
    )  # fmt: skip
    return replace(base, **changes)


def _same(first: list[RoundRecord], second: list[RoundRecord]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        for a, b in zip(first, second, strict=True)
        for f in dataclasses.fields(a)
        if not f.name.startswith("seconds")
    )


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def test_labels_are_spent_as_the_protocol_says(toy: Toy) -> None:
    records = list(run_trajectory(_trajectory(toy)))
    assert [r.round for r in records] == [0, 1, 2, 3, 4]
    assert [r.labels for r in records] == [8, 12, 16, 20, 24] == [r.n_labeled for r in records]
    assert [r.class_counts.sum() for r in records] == [8, 12, 16, 20, 24]
    asked = np.concatenate([r.asked_ids for r in records])
    assert len(np.unique(asked)) == 24 == Protocol(8, True, 4, 5).total_labels
    cold = list(run_trajectory(_trajectory(toy, protocol=Protocol(0, True, 4, 5))))
    assert [r.labels for r in cold] == [4, 8, 12, 16, 20]


def test_a_run_goes_on_where_it_was_cut(toy: Toy) -> None:
    whole = list(run_trajectory(_trajectory(toy)))
    for cut in range(len(whole) + 1):
        rest = list(run_trajectory(_trajectory(toy, learner=NearestMean()), whole[:cut]))
        assert _same(whole, whole[:cut] + rest), cut


def test_a_learner_that_carries_weights_goes_on_from_its_state(toy: Toy) -> None:
    @dataclass
    class Random:
        def select(self, round: Round) -> Selection:
            return ask_pool(round.rng.permutation(round.unlabeled)[: round.batch])

    learner = Carrying(carry=True)
    whole, states = [], []
    for record in run_trajectory(_trajectory(toy, strategy=Random(), learner=learner)):
        whole.append(record)
        states.append(learner.state())
    for cut in range(1, len(whole)):
        again = _trajectory(toy, strategy=Random(), learner=Carrying(carry=True))
        assert _same(whole, whole[:cut] + list(run_trajectory(again, whole[:cut], states[cut - 1])))
    with pytest.raises(ValueError, match="without the learner's state"):
        list(run_trajectory(_trajectory(toy, learner=Carrying(carry=True)), whole[:2]))


class Forgetful(Carrying):
    """Its state spares a fit and decides nothing."""

    starts_afresh = True


def test_a_lost_state_of_a_learner_that_starts_afresh_costs_a_fit_alone(toy):
    whole = list(run_trajectory(_trajectory(toy, learner=Forgetful())))
    learner = Forgetful()
    rest = list(run_trajectory(_trajectory(toy, learner=learner), whole[:2]))
    assert _same(whole, whole[:2] + rest)
    assert learner.fits == 1 + len(rest)


@dataclass
class Fixed:
    selection: Selection

    def select(self, round: Round) -> Selection:
        return self.selection


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([70, 71, 72, 73, 74], "costs 5 annotations, the round's batch is 4"),
        ([70, 71, 70], "pool id 70 is asked for 2 times"),
        ([80], "80 is not an unlabeled item"),
        ([-1], "-1 is not an unlabeled item"),
        ([], "asked for nothing"),
    ],
)
def test_selections_against_the_rules_end_the_run(toy: Toy, ids: list[int], message: str) -> None:
    bad = _trajectory(toy, strategy=Fixed(ask_pool(np.array(ids, np.int64))), protocol=Protocol(0, True, 4, 2))
    with pytest.raises(SelectionError, match=message):
        list(run_trajectory(bad))


@pytest.mark.parametrize(
    ("assumed", "labels", "message"),
    [
        ([60, 61, 60], [0, 1, 2], "assumed pool id 60 is given 2 times"),
        ([60, 70], [0, 1], "pool id 70 is assumed and asked for in the same selection"),
        ([80], [0], "assumed pool id 80 is not an unlabeled item"),
        ([60, 61], [0], r"assumed ids have shape \(2,\) and their labels \(1,\)"),
        ([60.0], [0], "assumed ids are integers, not float64"),
        ([60], [0.5], "assumed labels are integers, not float64"),
    ],
)
def test_assumed_labels_against_the_rules_end_the_run(
    toy: Toy, assumed: list[int], labels: list[int], message: str
) -> None:
    asked = PoolQuery(np.array([70, 71]))
    chosen = Selection((asked,), PseudoLabels(np.array(assumed), np.array(labels)))
    with pytest.raises(SelectionError, match=message):
        list(run_trajectory(_trajectory(toy, strategy=Fixed(chosen), protocol=Protocol(0, True, 4, 2))))


def test_a_labeled_id_cannot_be_assumed(toy: Toy) -> None:
    taken = initial_ids(toy.labels, 4, Protocol(8), 3)[:1]
    free = np.setdiff1d(np.arange(toy.pool.size), initial_ids(toy.labels, 4, Protocol(8), 3))[:1]
    chosen = Selection((PoolQuery(free),), PseudoLabels(taken, np.array([0])))
    with pytest.raises(SelectionError, match=r"assumed pool id .* is not an unlabeled item"):
        list(run_trajectory(_trajectory(toy, strategy=Fixed(chosen))))


@pytest.mark.parametrize("scores", [np.zeros(2), np.zeros((3, 1)), np.float64(1.0)])
def test_scores_are_one_per_asked_id(toy: Toy, scores: np.ndarray) -> None:
    chosen = Selection((PoolQuery(np.array([70, 71, 72])),), trace={"scores": scores})
    with pytest.raises(SelectionError, match=r"the trace has scores of shape .* for 3 pool ids"):
        list(run_trajectory(_trajectory(toy, strategy=Fixed(chosen), protocol=Protocol(0, True, 4, 2))))


@pytest.mark.parametrize(("answer", "word"), [(np.array([70]), "ndarray"), (None, "None"), ([70], "list")])
def test_what_is_no_selection_is_refused_by_name(toy: Toy, answer: Any, word: str) -> None:
    wanted = rf"select must return a Selection, e\.g\. ask_pool\(ids\); Fixed returned {word}$"
    with pytest.raises(SelectionError, match=wanted):
        list(run_trajectory(_trajectory(toy, strategy=Fixed(answer), protocol=Protocol(0, True, 4, 2))))


def test_a_fit_without_a_model_is_refused_by_name(toy: Toy) -> None:
    class Silent(NearestMean):
        def fit(self, *given: Any) -> Any:
            super().fit(*given)

    with pytest.raises(TypeError, match=r"fit must return a model, .*; Silent returned None$"):
        list(run_trajectory(_trajectory(toy, learner=Silent())))


def test_a_labeled_id_is_refused(toy: Toy) -> None:
    taken = initial_ids(toy.labels, 4, Protocol(8), 3)[:1]
    with pytest.raises(SelectionError, match="a position taken for a pool id"):
        list(run_trajectory(_trajectory(toy, strategy=Fixed(ask_pool(taken)))))


def test_the_truth_oracle_cannot_see_images(toy: Toy) -> None:
    drawn = Fixed(Selection((SyntheticQuery(np.zeros((1, 8, 8))),)))
    with pytest.raises(ValueError, match="need a classifier oracle"):
        list(run_trajectory(_trajectory(toy, strategy=drawn, protocol=Protocol(0, True, 4, 2))))


@given(st.integers(1, 40), st.integers(0, 1000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_initial_sets(initial: int, seed: int, balanced: bool) -> None:
    labels = np.tile(np.arange(5), 20)
    protocol = Protocol(initial, balanced)
    ids = initial_ids(labels, 5, protocol, seed)
    assert len(np.unique(ids)) == initial
    assert np.array_equal(ids, initial_ids(labels, 5, replace(protocol, batch=3, rounds=2), seed))
    if balanced:
        counts = np.bincount(labels[ids], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_a_class_too_small_for_a_balanced_set_is_named() -> None:
    with pytest.raises(ValueError, match="class 1 has 2 items; a balanced initial set needs 4"):
        initial_ids(np.r_[np.zeros(20, int), 1, 1], 2, Protocol(8), 0)


def test_streams_are_apart_and_repeatable() -> None:
    draws = {(s, p, r): stream(s, p, r).integers(0, 2**62) for s in (0, 1) for p in PURPOSES for r in (-1, 0, 1)}
    assert len(set(draws.values())) == len(draws)
    assert all(stream(*key).integers(0, 2**62) == value for key, value in draws.items())
    # A number pinned on purpose: changing it changes every result that anyone has.
    assert stream(7, "select", 2).integers(0, 10**9) == 640170350
    assert stream(0, "initial").integers(0, 10**9) == 674263323
    with pytest.raises(ValueError, match="unknown random stream 'selekt'"):
        stream(0, "selekt")


def test_metrics_against_a_plain_reading() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    labels = np.array([0, 0, 1, 1])
    got = classification_metrics(probs, labels)
    assert got["accuracy"] == 0.5
    assert got["balanced_accuracy"] == 0.5
    assert got["macro_f1"] == pytest.approx((2 / 3 + 0.5) / 2)
    assert got["nll"] == pytest.approx(-np.log([0.7, 0.4, 0.8, 0.3]).mean())
    assert got["ece"] == pytest.approx((0.3 + 0.5 + 0.2 + 0.4) / 4)
    with pytest.raises(FloatingPointError, match="not finite"):
        classification_metrics(np.array([[np.nan, 1.0]]), np.array([0]))
