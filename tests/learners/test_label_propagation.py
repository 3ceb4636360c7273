"""Label propagation as a learner, and jLP, on one shared graph, against dense float64 algebra."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.query import NONE, PseudoLabels
from ray_al.core.round import Round
from ray_al.core.seeds import stream
from ray_al.kernels import jlp, label_propagation
from ray_al.methods import build, resolve
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores, ModelScores
from tests.fakes import array_pool

N, M, CLASSES = 120, 30, 4


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth, test_truth = rng.integers(0, CLASSES, N), rng.integers(0, CLASSES, M)
    centers = rng.standard_normal((CLASSES, 12))
    x = (centers[truth] + 0.35 * rng.standard_normal((N, 12))).astype(np.float32)
    x[70:75] = x[60:65]  # duplicates
    return x, truth, (centers[test_truth] + 0.35 * rng.standard_normal((M, 12))).astype(np.float32), test_truth


X, TRUTH, TEST, TEST_TRUTH = rows()
POOL = array_pool({("x", "pool"): X, ("x", "test"): TEST}, CLASSES)
LABELED = LabeledSet(np.arange(N // 2), TRUTH[: N // 2])


def similarities(queries: np.ndarray, k: int, own: bool) -> np.ndarray:
    """(q, N) cosines cubed of the k nearest, 0 elsewhere; itself left out by id."""
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries.astype(float), X.astype(float)))
    cosine = a @ b.T
    if own:
        np.fill_diagonal(cosine, -np.inf)
    out = np.zeros(cosine.shape)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    np.put_along_axis(out, near, np.maximum(np.take_along_axis(cosine, near, 1), 0) ** 3, 1)
    return out


def dense_graph(k: int, graph: str) -> np.ndarray:
    a = similarities(X, k, own=True)
    w = a + a.T if graph == "union" else np.where((a > 0) & (a.T > 0), a, 0)
    degree = w.sum(1)
    root = np.divide(1, np.sqrt(degree), where=degree > 0, out=np.zeros(N))
    return root[:, None] * w * root


def shares(z: np.ndarray) -> np.ndarray:
    total = z.sum(1, keepdims=True)
    return np.where(total > 1e-12, z / np.maximum(total, 1e-12), 1 / CLASSES)


def fitted(service: NeighborService, labeled: LabeledSet = LABELED, assume: PseudoLabels = NONE, **options: Any) -> Any:
    values, faults = resolve("learner", "label_propagation", options)
    assert not faults
    learner = build("learner", "label_propagation", values, neighbors=service, service=None)
    return learner.fit(labeled, assume, POOL, stream(0, "init-weights"))


@pytest.mark.parametrize("graph", ["union", "reciprocal"])
@pytest.mark.parametrize("balanced", [True, False])
def test_probabilities_are_those_of_dense_algebra(graph: str, balanced: bool) -> None:
    model = fitted(NeighborService(POOL.reader), k=15, graph=graph, balanced=balanced)
    y = np.eye(CLASSES)[LABELED.labels] / (np.bincount(LABELED.labels) if balanced else 1)
    z = np.linalg.solve(np.eye(N) - 0.99 * dense_graph(15, graph), np.vstack([y, np.zeros((N - N // 2, CLASSES))]))
    np.testing.assert_allclose(model.output("probs"), shares(z), atol=1e-4)
    test = similarities(TEST, 15, own=False) @ z
    np.testing.assert_allclose(model.output("probs", split="test"), shares(test), atol=1e-4)
    some = np.array([3, 119, 60])
    assert np.array_equal(model.output("probs", some), model.output("probs")[some])
    assert (model.output("probs")[N // 2 :].argmax(1) == TRUTH[N // 2 :]).mean() > 0.9
    assert (model.output("probs", split="test").argmax(1) == TEST_TRUTH).mean() > 0.9
    with pytest.raises(ValueError, match="no head 'embedding'; it has: probs"):
        model.output("embedding")


def test_pseudo_labels_count_as_labels() -> None:
    service = NeighborService(POOL.reader)
    few = LabeledSet(LABELED.ids[:40], LABELED.labels[:40])
    assumed = PseudoLabels(LABELED.ids[40:], LABELED.labels[40:])
    assert np.array_equal(fitted(service, few, assumed).output("probs"), fitted(service).output("probs"))


def test_rows_that_nothing_reaches_are_equally_likely() -> None:
    x = np.array([[1, 0.1], [1, 0.2], [-1, 0.1], [-1, 0.2]], np.float32)
    pool = array_pool({("x", "pool"): x, ("x", "test"): np.array([[1, 0], [-1, 0]], np.float32)}, 3)
    learner = build("learner", "label_propagation", {"k": 1}, neighbors=NeighborService(pool.reader))
    model = learner.fit(LabeledSet(np.array([0]), np.array([2])), NONE, pool, stream(0, "init-weights"))
    third = [1 / 3] * 3
    np.testing.assert_allclose(model.output("probs"), [[0, 0, 1], [0, 0, 1], third, third], rtol=1e-6)
    np.testing.assert_allclose(model.output("probs", split="test"), [[0, 0, 1], third], rtol=1e-6)


def test_many_trajectories_are_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    service, sizes, plain = NeighborService(POOL.reader), list[int](), label_propagation.solve

    def slow(weights: Any, requests: Any) -> Any:
        sizes.append(len(requests))
        time.sleep(0.05)  # long enough for the others to gather
        return plain(weights, requests)

    sets = [LabeledSet(LABELED.ids[i : i + 20], LABELED.labels[i : i + 20]) for i in range(12)]
    alone = [fitted(service, labeled).output("probs") for labeled in sets]
    monkeypatch.setattr(label_propagation, "solve", slow)
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda labeled: fitted(service, labeled).output("probs"), sets))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert sum(sizes) == 12
    assert len(sizes) < 12


class Embedding:
    """A model of this process whose embedding is the rows."""

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        assert head == "embedding"
        return X if ids is None else X[ids]


@pytest.mark.parametrize("where", ["own", "shared", "linear"])
@pytest.mark.parametrize("graph", ["union", "reciprocal"])
def test_jlp_is_the_greedy_sequence_wherever_the_rows_are(where: str, graph: str) -> None:
    scorer = PoolScorer(POOL.reader)
    model: Any = Embedding()
    scores: Any = LinearScores(scorer, "x", None) if where == "linear" else ModelScores(scorer, "x", model, True)
    options = {"k": 12, "graph": graph, **({"space": "x"} if where == "shared" else {})}
    values, faults = resolve("strategy", "jlp", options)
    assert not faults
    neighbors = None if where == "own" else NeighborService(POOL.reader)
    unlabeled, rng = np.arange(N // 2, N), stream(0, "select", 0)
    view = Round(0, 9, POOL, LABELED, unlabeled, model, scores, neighbors, None, rng)
    found = build("strategy", "jlp", values).select(view)
    inverse = np.linalg.inv(np.eye(N) - 0.99 * dense_graph(12, graph))
    inverse[np.abs(inverse) < 1e-12] = 0
    sources = list(LABELED.ids)
    for pick, score in zip(found.pool_ids, found.trace["scores"], strict=True):
        g = inverse[:, sources].sum(1)
        left = np.setdiff1d(unlabeled, sources)
        assert pick in left
        np.testing.assert_allclose([g[pick], score], g[left].min(), rtol=1e-4, atol=1e-9)  # of weights in float32
        sources.append(pick)


def test_a_shared_graph_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plain = [], jlp.pick
    service = NeighborService(POOL.reader)
    monkeypatch.setattr(jlp, "pick", lambda weights, *args: (made.append(weights), plain(weights, *args))[1])
    for seed in range(3):
        service.jlp("x", 10, LABELED.ids, np.arange(60, N), 3, seed)
    fitted(service, k=10)
    assert made[0] is made[1] is made[2]
    assert len([key for key in service._kept._made if key[0] == "graph"]) == 1


@pytest.mark.parametrize("kind", [("strategy", "jlp"), ("learner", "label_propagation")])
def test_faults_name_the_value(kind: tuple[str, str]) -> None:
    for options, message in [
        ({"k": 0}, f"{kind[1]} needs k >= 1, not 0"),
        ({"graph": "both"}, f"{kind[1]} takes graph: union or reciprocal, not 'both'"),
        ({"alpha": 1.0}, f"{kind[1]} needs alpha between 0 and 1, not 1.0"),
        ({"gamma": 0.0}, f"{kind[1]} needs gamma > 0, not 0.0"),
        ({"index": "tree"}, f"{kind[1]} takes index: flat, hnsw or ivf, not 'tree'"),
    ]:
        assert resolve(*kind, options)[1] == [message]
