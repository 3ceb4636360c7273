"""The active-learning loop. It yields one record per round and does no input or output; the caller writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.core.interfaces import Learner, Model, Neighbors, PoolScores, StatefulLearner, Strategy
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.metrics import classification_metrics
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.query import NONE, PoolQuery, PseudoLabels, Selection, check_selection
from ray_al.core.round import Round, RoundRecord
from ray_al.core.seeds import stream


@dataclass(frozen=True)
class Protocol:
    """How labels are spent: `initial` labels first, then `batch` a round; `rounds` models are trained in all.

    `initial` 0 leaves the first batch to the strategy (cold start). Labels at the end: initial + (rounds-1) * batch,
    or rounds * batch from a cold start.
    """

    initial: int = 10
    balanced: bool = True
    batch: int = 10
    rounds: int = 10

    @property
    def total_labels(self) -> int:
        return (self.initial or self.batch) + (self.rounds - 1) * self.batch

    @property
    def label(self) -> str:
        """Initial labels + batches x batch size, as papers write it: "10+9x10"."""
        batches = self.rounds - 1 if self.initial else self.rounds
        return f"{self.initial}+{batches}x{self.batch}" + ("" if self.balanced or not self.initial else " unbalanced")


@dataclass(frozen=True)
class Trajectory:
    """Everything one run needs. `scores_of(model)` gives bulk reads; with None, those that need no model."""

    strategy: Strategy
    learner: Learner
    protocol: Protocol
    seed: int
    pool: Pool
    oracle: TruthOracle
    test_labels: np.ndarray  # (M,)
    scores_of: Callable[[Model | None], PoolScores | None]
    neighbors: Neighbors | None = None


def initial_ids(truth: np.ndarray, classes: int, protocol: Protocol, seed: int) -> np.ndarray:
    """The first labeled ids: a function of dataset, protocol and seed, the same for every strategy and learner.

    Balanced sets take initial // classes of each class, and one more of classes drawn at random for the rest.

    Raises:
        ValueError: a class has too few items for a balanced set.
    """
    rng = stream(seed, "initial")
    if not protocol.balanced:
        return rng.permutation(len(truth))[: protocol.initial]
    quota = np.full(classes, protocol.initial // classes)
    quota[rng.permutation(classes)[: protocol.initial % classes]] += 1
    picks = []
    for label in range(classes):
        members = np.flatnonzero(truth == label)
        if len(members) < quota[label]:
            raise ValueError(f"class {label} has {len(members)} items; a balanced initial set needs {quota[label]}")
        picks.append(rng.permutation(members)[: quota[label]])
    return rng.permutation(np.concatenate(picks))


def run_trajectory(
    trajectory: Trajectory, done: Sequence[RoundRecord] = (), state: bytes | None = None
) -> Iterator[RoundRecord]:
    """Yield the records of rounds len(done), len(done)+1, ... `done` are the records already on the ledger, in order.

    Resuming trains the last recorded model again from the same streams (or takes it from `state`, for learners that
    carry weights), so the records that follow equal those of a run that was never interrupted.
    """
    t = trajectory
    labeled = LabeledSet()
    for record in done:
        labeled = labeled.add(t.oracle.answer(Selection((PoolQuery(record.asked_ids),))))
    model = _refit(t, labeled, done[-1], state) if done and len(done) < t.protocol.rounds else None
    for index in range(len(done), t.protocol.rounds):
        started = time.perf_counter()
        selection = _select(t, index, labeled, model)
        selected = time.perf_counter()
        labeled = labeled.add(t.oracle.answer(selection))
        model = _fit(t, labeled, selection.assume, index)
        fitted = time.perf_counter()
        metrics = classification_metrics(model.output("probs", split="test"), t.test_labels)
        evaluated = time.perf_counter()
        yield RoundRecord(
            round=index,
            labels=labeled.cost,
            n_labeled=len(labeled.ids),
            n_synthetic=len(labeled.image_labels),
            **metrics,
            asked_ids=selection.pool_ids,
            asked_scores=np.asarray(selection.trace.get("scores", ()), np.float64),
            class_counts=np.bincount(np.r_[labeled.labels, labeled.image_labels], minlength=t.pool.classes),
            assumed_ids=selection.assume.ids,
            assumed_labels=selection.assume.labels,
            seconds_fit=fitted - selected,
            seconds_select=selected - started,
            seconds_eval=evaluated - fitted,
        )


def _fit(t: Trajectory, labeled: LabeledSet, assume: PseudoLabels, index: int) -> Model:
    return t.learner.fit(labeled, assume, t.pool, stream(t.seed, "init-weights", index))


def _refit(t: Trajectory, labeled: LabeledSet, last: RoundRecord, state: bytes | None) -> Model:
    if isinstance(t.learner, StatefulLearner):
        if state is None:
            raise ValueError(f"round {last.round} was recorded without the learner's state; it cannot be resumed")
        return t.learner.restore(state, t.pool)
    return _fit(t, labeled, PseudoLabels(last.assumed_ids, last.assumed_labels), last.round)


def _select(t: Trajectory, index: int, labeled: LabeledSet, model: Model | None) -> Selection:
    """The selection that opens round `index`, checked against pool and budget."""
    if index == 0 and t.protocol.initial:
        ids = initial_ids(t.oracle.labels, t.pool.classes, t.protocol, t.seed)
        return Selection((PoolQuery(ids),), NONE)
    free = np.ones(t.pool.size, bool)
    free[labeled.ids] = False
    unlabeled = np.flatnonzero(free)
    view = Round(
        index=index - 1,
        batch=t.protocol.batch,
        pool=t.pool,
        labeled=labeled,
        unlabeled=unlabeled,
        model=model,
        scores=t.scores_of(model),
        neighbors=t.neighbors,
        generator=None,
        rng=stream(t.seed, "select", index - 1),
    )
    selection = t.strategy.select(view)
    check_selection(selection, unlabeled=unlabeled, budget=t.protocol.batch)
    return selection
