"""What each strategy is about, against a plain reading of its paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.linear import LinearHead
from ray_al.core.query import NONE
from ray_al.core.round import Round
from ray_al.core.seeds import stream
from ray_al.learners.logreg import LogReg
from ray_al.methods import build, resolve
from ray_al.services import shard
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores
from tests.fakes import Toy, array_pool, toy_pool


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def _view(toy: Toy, batch: int, labeled: LabeledSet | None = None, seed: int = 0) -> Round:
    service = PoolScorer(toy.pool.reader)
    labeled = toy.labeled if labeled is None else labeled
    model = LogReg(service=service).fit(labeled, NONE, toy.pool, stream(0, "init-weights")) if len(labeled) else None
    scores = LinearScores(service, "pixels", model.linear if model else None)
    unlabeled = np.setdiff1d(np.arange(toy.pool.size), labeled.ids)
    return Round(0, batch, toy.pool, labeled, unlabeled, model, scores, None, None, stream(seed, "select", 0))


def _picks(view: Round, name: str, **options: Any) -> np.ndarray:
    values, faults = resolve("strategy", name, options)
    assert not faults
    return build("strategy", name, values).select(view).pool_ids


def test_uncertainty_picks_the_least_sure(toy: Toy) -> None:
    view = _view(toy, 5)
    assert view.model is not None
    probs = view.model.output("probs", view.unlabeled).astype(np.float64)
    ordered = np.sort(probs, 1)
    naive = {
        "entropy": -(probs * np.log(probs)).sum(1),
        "least_confidence": -ordered[:, -1],
        "margin": ordered[:, -2] - ordered[:, -1],
    }
    for name, values in naive.items():
        best = view.unlabeled[np.argsort(-values)[:5]]
        assert sorted(_picks(view, name)) == sorted(best), name


def test_kcenter_greedy_is_farthest_first(toy: Toy) -> None:
    view = _view(toy, 6)
    x = toy.pool.inputs("pixels").astype(np.float64)
    nearest = np.linalg.norm(x[:, None] - x[view.labeled.ids], axis=2).min(1)
    want = []
    for _ in range(6):
        want.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(x - x[want[-1]], axis=1))
    assert _picks(view, "kcenter_greedy").tolist() == want


def test_kmeans_partition_draws_equally(toy: Toy) -> None:
    """Four far groups of equal size, four clusters, eight draws: two of each group."""
    rng = np.random.default_rng(0)
    x = (np.repeat(np.eye(4, 8), 20, 0) * 50 + rng.normal(0, 0.1, (80, 8))).astype(np.float32)
    groups = np.repeat(np.arange(4), 20)
    far = Toy(array_pool({("pixels", "pool"): x}, 4), groups, groups[:0], LabeledSet(), np.arange(80))
    picks = _picks(_view(far, 8, LabeledSet()), "kmeans_partition", clusters=4)
    assert np.bincount(groups[picks]).tolist() == [2, 2, 2, 2]
    uneven = _picks(_view(far, 6, LabeledSet()), "kmeans_partition", clusters=4)
    assert sorted(np.bincount(groups[uneven])) == [1, 1, 2, 2]


def test_typiclust_covers_the_uncovered_clusters_first(toy: Toy) -> None:
    """Four far groups, two of them labeled: the next two picks are the most typical items of the other two."""
    rng = np.random.default_rng(1)
    centers = np.eye(4, 8) * 50
    x = (np.repeat(centers, 20, 0) + rng.normal(0, 1, (80, 8))).astype(np.float32)
    groups = np.repeat(np.arange(4), 20)
    labeled = LabeledSet(np.array([0, 20]), groups[[0, 20]])
    far = Toy(array_pool({("pixels", "pool"): x}, 4), groups, groups[:0], labeled, np.arange(80))
    picks = _picks(_view(far, 2, labeled), "typiclust")
    assert sorted(groups[picks]) == [2, 3]
    for pick in picks:
        members = np.flatnonzero(groups == groups[pick])
        distances = np.linalg.norm(x[members][:, None].astype(np.float64) - x[members], axis=2)
        typical = 1 / np.sort(distances, 1)[:, 1:].mean(1)  # 20 neighbors: all others of the group
        assert pick == members[typical.argmax()]


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_those_of_plain_loops_over_clusters(toy: Toy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With clusters that are empty, small, or labeled throughout."""
    assignment = np.random.default_rng(seed).permutation(np.repeat([0, 2, 3, 4, 5], [40, 20, 10, 7, 3]))
    assignment[toy.labeled.ids[:30]] = 9
    monkeypatch.setattr(PoolScorer, "kmeans", lambda *_: assignment)
    view = _view(toy, 30, seed=seed)
    rng = stream(seed, "select", 0)
    quota = np.full(11, 30 // 11)
    quota[rng.permutation(11)[: 30 % 11]] += 1
    order = rng.permutation(view.unlabeled)
    chosen = np.zeros(len(order), bool)
    for cluster in range(11):
        chosen[np.flatnonzero(assignment[order] == cluster)[: quota[cluster]]] = True
    chosen[np.flatnonzero(~chosen)[: 30 - chosen.sum()]] = True
    assert _picks(view, "kmeans_partition", clusters=11).tolist() == order[chosen].tolist()

    members = [view.unlabeled[assignment[view.unlabeled] == c] for c in range(70)]
    sizes, covered = (np.bincount(a, minlength=70) for a in (assignment, assignment[toy.labeled.ids]))
    by_need = sorted(range(70), key=lambda c: (covered[c], -sizes[c]))
    want: list[int] = []
    for group in ([c for c in by_need if sizes[c] > 5], [c for c in by_need if sizes[c] <= 5]):
        while len(want) < 30 and (left := [c for c in group if len(members[c])]):
            for c in left[: 30 - len(want)]:
                assert view.scores is not None
                best = int(view.scores.typicality([members[c]], 20)[0].argmax())
                want.append(int(members[c][best]))
                members[c] = np.delete(members[c], best)
    assert _picks(view, "typiclust").tolist() == want


@pytest.mark.parametrize("first", ["norm", "uniform"])
def test_badge_of_probabilities_in_blocks_picks_the_same(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9000, 40)).astype(np.float32)  # several blocks, and the last one short
    service = PoolScorer(array_pool({("x", "pool"): x}, 60).reader)
    head = LinearHead("x", rng.normal(size=(60, 40)).astype(np.float32), np.zeros(60, np.float32))
    whole = service.linear_badge(head, 25, np.arange(7), 3, first)
    monkeypatch.setattr(service.shard.memory.probs, "_left", 4 * 9000 * 60 - 1)
    monkeypatch.delattr(shard.Shard, "probs")  # which would make all of them
    for a, b in zip(whole, service.linear_badge(head, 25, np.arange(7), 3, first), strict=True):
        assert np.array_equal(a, b)


def test_badge_prefers_large_and_diverse_gradients(toy: Toy) -> None:
    view = _view(toy, 4)
    assert view.model is not None
    probs = view.model.output("probs", view.unlabeled)
    gap = probs - np.eye(4)[probs.argmax(1)]
    norms = np.linalg.norm(gap, axis=1) * np.linalg.norm(toy.pool.inputs("pixels", view.unlabeled), axis=1)
    assert _picks(view, "badge")[0] == view.unlabeled[norms.argmax()]
    firsts = {int(_picks(_view(toy, 1, seed=s), "badge", first="uniform")[0]) for s in range(20)}
    assert len(firsts) > 5


def test_random_is_uniform(toy: Toy) -> None:
    counts = np.zeros(toy.pool.size)
    for seed in range(400):
        counts[_picks(_view(toy, 4, seed=seed), "random")] += 1
    drawn = counts[toy.unlabeled]
    assert counts.sum() == drawn.sum() == 1600
    assert drawn.min() > 15  # expected 40 each; a binomial sixth sigma
    assert drawn.max() < 75
