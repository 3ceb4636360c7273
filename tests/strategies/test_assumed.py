"""CEAL: what is assumed besides what is asked, by pool ids, and in the next fit alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ray_al.core.interfaces import Model, PoolScores
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.core.round import Round
from ray_al.core.seeds import stream
from ray_al.core.trajectory import Protocol, Trajectory, run_trajectory
from ray_al.learners.logreg import LogReg
from ray_al.methods import build, resolve
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores, ModelScores
from ray_al.services.served_scores import ServedScores
from tests.fakes import Toy, toy_pool


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def ceal(**options: Any) -> Any:
    values, faults = resolve("strategy", "ceal", options)
    assert not faults
    return build("strategy", "ceal", values)


def view_of(toy: Toy, kind: str = "linear", index: int = 0) -> Round:
    service = PoolScorer(toy.pool.reader)
    model = LogReg(l2=3.0, service=service).fit(toy.labeled, PseudoLabels(), toy.pool, stream(0, "init-weights"))
    scores: PoolScores
    if kind == "linear":
        scores = LinearScores(service, "pixels", model.linear)
    elif kind == "own":
        scores = ModelScores(service, "pixels", model, True)
    else:
        scores = ServedScores(service, "pixels", model)
    rng = stream(0, "select", index)
    return Round(index, 5, toy.pool, toy.labeled, toy.unlabeled, model, scores, None, None, rng)


def entropies(view: Round) -> tuple[np.ndarray, np.ndarray]:
    assert view.model is not None
    probs = view.model.output("probs").astype(np.float64)
    return -(probs * np.log(probs)).sum(1) / math.log(view.pool.classes), probs.argmax(1)


@pytest.mark.parametrize("kind", ["linear", "own", "served"])
@pytest.mark.parametrize(("share", "index"), [(0.5, 0), (0.5, 300), (0.2, 3)])
def test_assumes_the_confident_by_pool_ids(toy: Toy, kind: str, share: float, index: int) -> None:
    view = view_of(toy, kind, index)
    entropy, likeliest = entropies(view)
    threshold = float(np.quantile(entropy[view.unlabeled], share)) + 0.00033 * index
    selection = ceal(threshold=threshold).select(view)
    others = np.setdiff1d(view.unlabeled, selection.pool_ids)
    want = others[entropy[others] <= threshold - 0.00033 * index]
    assert 0 < len(want) < len(others)
    assert selection.assume.ids.tolist() == want.tolist()
    assert selection.assume.labels.tolist() == likeliest[want].tolist()
    uncertain = build("strategy", "entropy", {}).select(view_of(toy, kind, index))
    assert selection.pool_ids.tolist() == uncertain.pool_ids.tolist()


def test_the_threshold_decays_to_nothing(toy: Toy) -> None:
    counts = [len(ceal(threshold=1.0, decay=0.2).select(view_of(toy, index=i)).assume) for i in range(7)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0
    assert counts[6] == 0


class Remembering:
    """A learner that keeps what it was given."""

    def __init__(self, learner: LogReg) -> None:
        self.learner, self.seen = learner, list[tuple[LabeledSet, PseudoLabels]]()

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model:
        self.seen.append((labeled, assume))
        return self.learner.fit(labeled, assume, pool, rng)


def test_pseudo_labels_serve_one_fit_and_are_made_anew(toy: Toy) -> None:
    service = PoolScorer(toy.pool.reader)
    learner = Remembering(LogReg(service=service))

    def scores_of(model: Any) -> PoolScores:
        return LinearScores(service, "pixels", model.linear if model else None)

    trajectory = Trajectory(
        ceal(threshold=0.9), learner, Protocol(8, True, 8, 4), 0, toy.pool, TruthOracle(toy.labels), toy.test_labels,
        scores_of,
    )  # fmt: skip
    records = list(run_trajectory(trajectory))
    assert len(learner.seen[0][1]) == 0  # nothing is assumed of the initial set
    for (labeled, assume), record in zip(learner.seen[1:], records[1:], strict=True):
        assert len(assume) > 0
        assert not np.isin(assume.ids, labeled.ids).any()
        assert record.assumed_ids.tolist() == assume.ids.tolist()
        assert record.assumed_labels.tolist() == assume.labels.tolist()
    assert [record.labels for record in records] == [8, 16, 24, 32]  # they are free


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "ceal needs a threshold in 0..1, not 1.5"),
        ({"decay": -1.0}, "ceal needs decay >= 0, not -1.0"),
        ({"base": "margin"}, "unknown option of strategy ceal 'base'"),
    ],
)
def test_faults_name_the_value(options: dict[str, Any], message: str) -> None:
    assert message in resolve("strategy", "ceal", options)[1][0]
