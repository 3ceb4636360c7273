"""What every strategy of the table must do, whatever its idea."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ray_al.core.interfaces import PoolScores
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.query import NONE, check_selection
from ray_al.core.round import Round
from ray_al.core.seeds import stream
from ray_al.learners.committee import LogRegCommittee
from ray_al.learners.logreg import LogReg
from ray_al.learners.svc import Svc
from ray_al.methods import STRATEGIES, build, resolve
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores, ModelScores
from tests.fakes import Toy, toy_pool

BATCH = 7


def _round(toy: Toy, model_kind: str, labeled: LabeledSet, batch: int = BATCH, seed: int = 0) -> Round:
    service = PoolScorer(toy.pool.reader)
    scores: PoolScores
    if model_kind == "none":
        model, scores = None, LinearScores(service, "pixels", None)
    elif model_kind == "linear":
        model = LogReg(service=service).fit(labeled, NONE, toy.pool, stream(0, "init-weights"))
        scores = LinearScores(service, "pixels", model.linear)
    elif model_kind in ("committee", "own_committee"):
        model = LogRegCommittee(service=service).fit(labeled, NONE, toy.pool, stream(0, "init-weights"))
        own = ModelScores(service, "pixels", model, True)
        scores = own if model_kind == "own_committee" else LinearScores(service, "pixels", model.linear)
    else:
        model = Svc(grid=False).fit(labeled, NONE, toy.pool, stream(0, "init-weights"))
        scores = ModelScores(service, "pixels", model, True)
    unlabeled = np.setdiff1d(np.arange(toy.pool.size), labeled.ids)
    index = -1 if model is None else 3
    neighbors = NeighborService(toy.pool.reader)
    rng = stream(seed, "select", index)
    return Round(index, batch, toy.pool, labeled, unlabeled, model, scores, neighbors, None, rng)


SEALS = {"candidates": {"name": "seals", "k": 3}}  # of the upper half, some: fewer and more than a batch


def _cases() -> list[Any]:
    cases = []
    for name, row in STRATEGIES.items():
        kinds = ["linear", "own"] if row.needs <= LogReg.heads & Svc.heads else []
        for kind in (*kinds, "committee", "own_committee", *(["none"] if row.cold_start else [])):
            cases.append(pytest.param(name, kind, {}, id=f"{name}-{kind}"))
            if not row.whole_pool:
                cases.append(pytest.param(name, kind, SEALS, id=f"{name}-{kind}-seals"))
    return cases


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def _select(name: str, view: Round, options: Mapping[str, Any]) -> Any:
    values, faults = resolve("strategy", name, options)
    assert not faults
    return build("strategy", name, values).select(view)


def _labeled(toy: Toy, kind: str) -> LabeledSet:
    """The lower half of the pool: a position taken for a pool id is then a labeled id."""
    return LabeledSet() if kind == "none" else toy.labeled


@pytest.mark.parametrize(("name", "kind", "options"), _cases())
def test_selection_keeps_the_rules(toy: Toy, name: str, kind: str, options: Mapping[str, Any]) -> None:
    view = _round(toy, kind, _labeled(toy, kind))
    if STRATEGIES[name].whole_pool:
        view = dataclasses.replace(view, batch=len(view.unlabeled))
    selection = _select(name, view, options)
    check_selection(selection, unlabeled=view.unlabeled, budget=view.batch, classes=view.pool.classes)
    assert selection.cost == view.batch
    assert len(selection.trace.get("scores", selection.pool_ids)) == len(selection.pool_ids)


@pytest.mark.parametrize(("name", "kind", "options"), _cases())
def test_same_seed_same_answer(toy: Toy, name: str, kind: str, options: Mapping[str, Any]) -> None:
    first, second = (_select(name, _round(toy, kind, _labeled(toy, kind)), options) for _ in range(2))
    assert first.pool_ids.tolist() == second.pool_ids.tolist()
    for key, values in first.trace.items():
        assert np.array_equal(values, second.trace[key])


@pytest.mark.parametrize(("name", "kind", "options"), _cases())
def test_the_round_is_not_changed(toy: Toy, name: str, kind: str, options: Mapping[str, Any]) -> None:
    view = _round(toy, kind, _labeled(toy, kind))
    before = view.unlabeled.copy(), view.labeled.ids.copy(), view.labeled.labels.copy()
    _select(name, view, options)
    after = view.unlabeled, view.labeled.ids, view.labeled.labels
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("name", "kind", "options"), _cases())
def test_a_pool_smaller_than_the_batch_is_emptied(toy: Toy, name: str, kind: str, options: Mapping[str, Any]) -> None:
    if kind == "none":
        pytest.skip("a cold start has the whole pool before it")
    most = LabeledSet(np.arange(toy.pool.size - 3), toy.labels[: toy.pool.size - 3])
    selection = _select(name, _round(toy, kind, most), options)
    assert sorted(selection.pool_ids) == [toy.pool.size - 3, toy.pool.size - 2, toy.pool.size - 1]


@pytest.mark.parametrize("name", [n for n, row in STRATEGIES.items() if row.needs])
def test_strategies_that_need_a_model_say_so(toy: Toy, name: str) -> None:
    with pytest.raises(ValueError, match="there is none before any label"):
        _select(name, _round(toy, "none", LabeledSet()), {})
