"""The active-learning loop. It yields one record per round and does no input or output; the caller writes."""

from __future__ import annotations

import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.core.interfaces import Learner, Model, Neighbors, PoolScores, StatefulLearner, Strategy
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.metrics import classification_metrics
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.protocol import Protocol, initial_ids
from ray_al.core.query import NONE, PoolQuery, PseudoLabels, Selection, SelectionError, check_selection
from ray_al.core.round import Round, RoundRecord
from ray_al.core.seeds import stream

__all__ = ["Protocol", "Trajectory", "initial_ids", "run_trajectory"]


class ShareFit(typing.Protocol):
    """Models that several trajectories need: fitted by the first of them, and given to the others as it left them."""

    def __call__(
        self, labeled: LabeledSet, assume: PseudoLabels, source: tuple[int, str, int], fit: Callable[[], Model]
    ) -> tuple[Model, bool]:
        """(the model, whether another one fitted it) of these labels, in this order, and this stream (`stream`)."""
        ...


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
    share: ShareFit | None = None  # first fits that other trajectories need, too


def run_trajectory(
    trajectory: Trajectory, done: Sequence[RoundRecord] = (), state: bytes | None = None
) -> Iterator[RoundRecord]:
    """Yield the records of rounds len(done), len(done)+1, ... `done` are the records already on the ledger, in order.

    Resuming trains the last recorded model again from the same streams (or takes it from `state`, for learners that
    carry weights; or as another trajectory has fitted it), so the records that follow equal those of a run that was
    never interrupted. One-shot draws need no model but their own.
    """
    t, labeled, model = trajectory, LabeledSet(), None
    one_shot = bool(t.protocol.budgets)
    if not one_shot:
        for record in done:
            labeled = labeled.add(t.oracle.answer(Selection((PoolQuery(record.asked_ids),))))
        model = _refit(t, labeled, done[-1], state) if done and len(done) < t.protocol.rounds else None
    for index in range(len(done), t.protocol.rounds):
        started = time.perf_counter()
        selection = _draw(t, index) if one_shot else _select(t, index, labeled, model)
        selected = time.perf_counter()
        labeled = (LabeledSet() if one_shot else labeled).add(t.oracle.answer(selection))
        model, shared = _fit(t, labeled, selection.assume, index)
        fitted = time.perf_counter()
        metrics = _metrics(t, model)
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
            assumed_ids=np.asarray(selection.assume.ids, np.int64),
            assumed_labels=np.asarray(selection.assume.labels, np.int64),
            fit_shared=shared,
            seconds_fit=fitted - selected,
            seconds_select=selected - started,
            seconds_eval=evaluated - fitted,
        )


def _fit(t: Trajectory, labeled: LabeledSet, assume: PseudoLabels, index: int) -> tuple[Model, bool]:
    """The model of round `index`, and whether another trajectory fitted it."""
    source = t.seed, "init-weights", t.protocol.budgets[index] if t.protocol.budgets else index

    def fit() -> Model:
        model = t.learner.fit(labeled, assume, t.pool, stream(*source))
        if not callable(getattr(model, "output", None)):
            raise TypeError(
                f"fit must return a model, which has output(head, ids, split); "
                f"{type(t.learner).__name__} returned {_called(model)}"
            )
        return model

    # Later ones, and those that a strategy chose, are hardly ever another's, too: they are not worth storing.
    if t.share is not None and index == 0 and t.protocol.initial:
        return t.share(labeled, assume, source, fit)
    return fit(), False


def _metrics(t: Trajectory, model: Model) -> Mapping[str, float]:
    measured: Mapping[str, float] | None = None
    if callable(own := getattr(model, "test_metrics", None)):
        measured = own()
    return measured or classification_metrics(model.output("probs", split="test"), t.test_labels)


def _refit(t: Trajectory, labeled: LabeledSet, last: RoundRecord, state: bytes | None) -> Model:
    if isinstance(t.learner, StatefulLearner):
        if state is not None:
            return t.learner.restore(state, t.pool)
        if not getattr(t.learner, "starts_afresh", False):
            raise ValueError(f"round {last.round} was recorded without the learner's state; it cannot be resumed")
    return _fit(t, labeled, PseudoLabels(last.assumed_ids, last.assumed_labels), last.round)[0]


def _select(t: Trajectory, index: int, labeled: LabeledSet, model: Model | None) -> Selection:
    """The selection that opens round `index`."""
    if index == 0 and t.protocol.initial:
        ids = initial_ids(t.oracle.labels, t.pool.classes, t.protocol, t.seed)
        return Selection((PoolQuery(ids),), NONE)
    return _ask(t, index - 1, t.protocol.batch, labeled, model, stream(t.seed, "select", index - 1))


def _draw(t: Trajectory, index: int) -> Selection:
    """The one-shot draw of round `index`. Its stream is the budget's: other budgets beside it do not change it."""
    budget = t.protocol.budgets[index]
    selection = _ask(t, -1, budget, LabeledSet(), None, stream(t.seed, "select", budget))
    if selection.cost != budget:
        raise SelectionError(f"a one-shot draw of {budget} labels asks for {selection.cost}")
    return selection


def _ask(
    t: Trajectory, cycle: int, batch: int, labeled: LabeledSet, model: Model | None, rng: np.random.Generator
) -> Selection:
    """The strategy's selection, checked against pool and budget."""
    free = np.ones(t.pool.size, bool)
    free[labeled.ids] = False
    unlabeled = np.flatnonzero(free)
    view = Round(
        index=cycle,
        batch=batch,
        pool=t.pool,
        labeled=labeled,
        unlabeled=unlabeled,
        model=model,
        scores=t.scores_of(model),
        neighbors=t.neighbors,
        generator=None,
        rng=rng,
        seed=t.seed,
    )
    selection = t.strategy.select(view)
    if not isinstance(selection, Selection):
        raise SelectionError(
            f"select must return a Selection, e.g. ask_pool(ids); "
            f"{type(t.strategy).__name__} returned {_called(selection)}"
        )
    check_selection(selection, unlabeled=unlabeled, budget=batch, classes=t.pool.classes)
    return selection


def _called(value: object) -> str:
    return "None" if value is None else type(value).__name__
