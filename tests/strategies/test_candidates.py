"""Candidate restriction: what a restricted strategy may see, and that it is the strategy itself that chooses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ray_al.config import parse_sweep
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.query import NONE, Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import stream
from ray_al.experiment import TrajectoryConfig
from ray_al.learners.logreg import LogReg
from ray_al.methods import build, resolve
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores
from ray_al.strategies.candidates import Restricted, RestrictedScores, Seals
from ray_al.sweep_file import ConfigError
from tests.fakes import Toy, toy_pool


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool(120)


def _view(toy: Toy, labels: int = 6, batch: int = 5, neighbors: Any = None, seed: int = 0) -> Round:
    ids = stream(seed, "initial").permutation(toy.pool.size)[:labels]
    labeled = LabeledSet(ids, toy.labels[ids], cost=labels)
    service = PoolScorer(toy.pool.reader)
    model = LogReg(service=service).fit(labeled, NONE, toy.pool, stream(0, "init-weights")) if labels else None
    scores = LinearScores(service, "pixels", model.linear if model else None)
    unlabeled = np.setdiff1d(np.arange(toy.pool.size), ids)
    neighbors = neighbors or NeighborService(toy.pool.reader)
    return Round(0, batch, toy.pool, labeled, unlabeled, model, scores, neighbors, None, stream(seed, "select", 0))


def _naive(toy: Toy, labeled: np.ndarray, k: int) -> set[int]:
    x = toy.pool.inputs("pixels").astype(np.float64)
    distances = np.linalg.norm(x[labeled][:, None] - x, axis=2)
    distances[np.arange(len(labeled)), labeled] = np.inf
    return set(np.argsort(distances, 1)[:, :k].ravel().tolist()) - set(labeled.tolist())


def _select(name: str, view: Round, **options: Any) -> Selection:
    values, faults = resolve("strategy", name, options)
    assert not faults
    selection: Selection = build("strategy", name, values).select(view)
    return selection


@pytest.mark.parametrize("k", [1, 4, 500])
def test_seals_are_the_neighbors_of_what_is_labeled(toy: Toy, k: int) -> None:
    view = _view(toy)
    found = Seals(k).candidates(view)
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) == _naive(toy, view.labeled.ids, min(k, 119))


def test_candidates_do_not_depend_on_what_was_asked_before(toy: Toy) -> None:
    used = NeighborService(toy.pool.reader)
    for labels in (3, 40, 9):
        fresh = Seals(4).candidates(_view(toy, labels))
        assert np.array_equal(fresh, Seals(4).candidates(_view(toy, labels, neighbors=used)))


@pytest.mark.parametrize("name", ["entropy", "margin", "kcenter_greedy", "badge"])
def test_a_restricted_strategy_is_the_strategy_in_a_smaller_pool(toy: Toy, name: str) -> None:
    """Its picks are those the strategy makes when everything else is excluded."""
    view = _view(toy, labels=10)
    assert view.scores is not None
    allowed = Seals(3).candidates(view)
    assert 5 < len(allowed) < 60
    picks = _select(name, view, candidates={"name": "seals", "k": 3}).pool_ids
    outside = np.setdiff1d(np.arange(toy.pool.size), allowed)
    if name == "kcenter_greedy":
        x = toy.pool.inputs("pixels").astype(np.float64)
        nearest = np.linalg.norm(x[:, None] - x[view.labeled.ids], axis=2).min(1)
        for pick in picks:
            assert pick == allowed[nearest[allowed].argmax()]
            nearest = np.minimum(nearest, np.linalg.norm(x - x[pick], axis=1))
    elif name == "badge":
        assert set(picks.tolist()) <= set(allowed.tolist())
        assert picks[0] == view.scores.badge(1, outside, 0)[0][0]
    else:
        assert set(picks.tolist()) == set(view.scores.top(name, 5, outside, 0)[0].tolist())


def test_too_few_candidates_are_topped_up_at_random(toy: Toy) -> None:
    seen = set()
    for seed in range(10):
        view = _view(toy, labels=3, batch=30, seed=seed)
        allowed = Seals(2).candidates(view)
        assert len(allowed) < 30
        picks = _select("random", view, candidates={"name": "seals", "k": 2}).pool_ids
        assert len(set(picks.tolist())) == 30
        assert set(allowed.tolist()) <= set(picks.tolist())
        seen |= set(picks.tolist()) - set(allowed.tolist())
    assert len(seen) > 80


def test_nothing_is_restricted_before_any_label(toy: Toy) -> None:
    free, restricted = (
        _select("kcenter_greedy", _view(toy, 0), **options) for options in ({}, {"candidates": "seals"})
    )
    assert np.array_equal(free.pool_ids, restricted.pool_ids)


def test_every_bulk_read_is_told_the_candidates() -> None:
    calls: list[tuple[str, Any]] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: calls.append((name, kwargs.get("among"))) or np.zeros(4, np.int32)

    scores: Any = RestrictedScores(Spy(), np.array([2, 5, 7]), np.array([4]), 9)  # type: ignore[arg-type]
    none = np.empty(0, np.int64)
    scores.top("entropy", 1, none, 0)
    scores.kcenter(1, none, none, 0)
    scores.badge(1, none, 0)
    scores.top("entropy", 1, none, 0, among=np.array([1, 5, 7, 8]))
    assert [(name, among.tolist()) for name, among in calls] == [
        ("top", [2, 5, 7]), ("kcenter", [2, 5, 7]), ("badge", [2, 5, 7]), ("top", [5, 7])
    ]  # fmt: skip
    assert scores.kmeans(30, 0).tolist() == [-1, -1, 0, -1, 0, 0, -1, 0, -1]  # the labeled take part


def test_the_inner_strategy_sees_the_candidates_alone(toy: Toy) -> None:
    class Look:
        def select(self, round: Round) -> Selection:
            views.append(round)
            return ask_pool(round.unlabeled[: round.take])

    views: list[Round] = []
    view = _view(toy)
    Restricted(Look(), Seals(4)).select(view)
    assert np.array_equal(views[0].unlabeled, Seals(4).candidates(view))
    assert {**vars(views[0]), "unlabeled": 0, "scores": 0} == {**vars(view), "unlabeled": 0, "scores": 0}
    Restricted(Look(), Seals(4)).select(dataclasses.replace(view, scores=None))
    assert views[1].scores is None


def _sweep(*strategies: Any, learner: Any = "logreg") -> dict[str, Any]:
    axes = {"dataset": ["digits"], "learner": [learner], "strategy": list(strategies), "seed": 1}
    return {"name": "t", "axes": axes, "protocol": {"initial": 10, "batch": 5, "rounds": 3}}


def test_candidates_are_part_of_the_identity_only_when_given() -> None:
    def ids(*strategies: Any) -> list[str]:
        return [t.id for t in parse_sweep(_sweep(*strategies)).trajectories]

    (plain,) = ids("entropy")
    assert ids({"name": "entropy", "candidates": None}) == [plain]
    (hundred,) = ids({"name": "entropy", "candidates": "seals"})
    assert ids({"name": "entropy", "candidates": {"name": "seals", "k": 100, "index": "flat"}}) == [hundred]
    assert ids({"name": "entropy", "candidates": {"name": "seals", "space": "pixels"}}) == [hundred]
    others = [{"k": 50}, {"index": "hnsw"}, {"space": "pca8"}]
    found = ids(*({"name": "entropy", "candidates": {"name": "seals", **other}} for other in others))
    assert len({plain, hundred, *found}) == 5


def test_candidates_travel_and_bring_what_they_need() -> None:
    entry = {"name": "entropy", "candidates": {"name": "seals", "k": 7, "space": "pca8"}}
    (config,) = parse_sweep(_sweep(entry)).trajectories
    assert config.name.strategy == "entropy(candidates=seals(k=7,space=pca8))"
    assert config.spaces == ("pixels", "pca8")
    assert config.strategy.method.neighbor_index
    again = TrajectoryConfig.from_json(config.to_json())
    made = build("strategy", again.strategy.name, again.strategy.values)
    assert made.candidates == Seals(7, "pca8", "flat")
    (images,) = parse_sweep(_sweep({"name": "entropy", "candidates": "seals"}, learner="cnn")).trajectories
    assert images.spaces == ("images", "pixels")


@pytest.mark.parametrize(
    ("strategy", "fault"),
    [
        ({"candidates": "sealz"}, "strategy entropy: unknown candidates 'sealz'; did you mean 'seals'? known: seals"),
        ({"candidates": {"name": "seals", "k": 0}}, "strategy entropy: candidates seals needs k >= 1, not 0"),
        ({"candidates": {"name": "seals", "k": 2.5}}, "option 'k' of candidates seals: "),
        ({"candidates": {"name": "seals", "n": 2}}, "unknown option of candidates seals 'n'; known: index, k, space"),
        ({"candidates": {"name": "seals", "index": "tree"}}, "seals takes index: flat, hnsw or ivf, not 'tree'"),
        ({"candidates": {"k": 2}}, "strategy entropy: candidates is a name or {name: seals, k: 100}, got {'k': 2}"),
        ({"candidates": 5}, "strategy entropy: candidates is a name or {name: seals, k: 100}, got 5"),
        ({"candidates": {"name": "seals", "space": "vaee"}}, "'vaee'"),
        ({"candidates": {"name": "seals", "space": "images"}}, "space 'images' does not fit, it reads vectors"),
        ({"name": "full", "candidates": "seals"}, "strategy full asks for the whole pool"),
    ],
)
def test_faults_say_what_and_what_else(strategy: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(_sweep({"name": "entropy", **strategy}))
    assert len(caught.value.faults) == 1
    assert fault in caught.value.faults[0]
