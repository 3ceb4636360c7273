"""jLP's sequence against the same by a dense float64 inverse: whatever the graph, the block and the columns kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ray_al.kernels import blocks, jlp, panel
from ray_al.kernels.affinity import Affinity, affinity, components
from ray_al.kernels.neighbors import unit_graph


def graph_of(seed: int, count: int, k: int, graph: str, islands: int, duplicates: int) -> Affinity:
    """Rows around a few centers; `islands` of them with neighbors among themselves alone, so in components apart."""
    rng = np.random.default_rng(seed)
    part = np.sort(rng.integers(0, islands, count))
    x = rng.standard_normal((islands * 3, 5))[part * 3 + rng.integers(0, 3, count)]
    x = x + 0.3 * rng.standard_normal((count, 5))
    for _ in range(duplicates):
        one, other = rng.integers(0, count, 2)
        x[one], part[one] = x[other], part[other]
    wide = np.zeros((count, 5 * islands))  # islands are orthogonal
    for i in range(count):
        wide[i, 5 * part[i] : 5 * part[i] + 5] = x[i]
    ids, far = unit_graph(wide.astype(np.float32), k)
    return affinity(ids, np.where(part[ids] == part[:, None], far, 1.9), graph=graph)  # beyond them cos < 0: no edge


def sparse(weights: Affinity) -> Any:
    values = weights.values.astype(np.float64)
    return csr_matrix((values, weights.columns, weights.starts), shape=(weights.count, weights.count))


def naive(
    weights: Affinity, labeled: np.ndarray, allowed: np.ndarray, count: int, seed: int, alpha: float
) -> tuple[list[int], list[float]]:
    """One dense solve for all, one pick after another; what no edge leads to from a source is 0 by definition."""
    inverse = np.linalg.inv(np.eye(weights.count) - alpha * sparse(weights).toarray())
    part = connected_components(sparse(weights), directed=False)[1]
    priority = np.random.default_rng(seed).permutation(weights.count)
    sources, left = list(labeled), list(allowed)
    picks, values = [], []
    for _ in range(count):
        g = inverse[:, sources].sum(1)
        g[~np.isin(part, part[sources])] = 0
        least = min(g[left])
        best = min((i for i in left if g[i] <= least * (1 + jlp.TIE)), key=lambda i: priority[i])
        picks.append(int(best))
        values.append(float(g[best]))
        sources.append(best)
        left.remove(best)
    return picks, values


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 150),
    k=st.integers(1, 10),
    graph=st.sampled_from(["union", "reciprocal"]),
    islands=st.integers(1, 6),
    duplicates=st.integers(0, 20),
    alpha=st.sampled_from([0.3, 0.9, 0.99, 0.999]),
    width=st.sampled_from([1, 3, 32]),
)
def test_the_sequence_is_the_naive_one(seed, count, k, graph, islands, duplicates, alpha, width):
    weights = graph_of(seed, count, min(k, count - 1), graph, islands, duplicates)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    cut = int(rng.integers(0, count // 2 + 1))
    labeled, allowed = order[:cut], order[cut:][: int(rng.integers(1, count))]
    asked = int(rng.integers(0, min(len(allowed), 40) + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel, "width_of", lambda count: width)
        picks, values = jlp.pick(weights, labeled, allowed, asked, seed, alpha)
    want, reached = naive(weights, labeled, allowed, asked, seed, alpha)
    assert picks.tolist() == want
    np.testing.assert_allclose(values, reached, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("graph", ["union", "reciprocal"])
def test_few_columns_are_solved_in_vain(graph, monkeypatch):
    """And the columns that are kept change nothing: with no room for them the picks are the same."""
    weights = graph_of(0, 3000, 10, graph, 2, 0)
    labeled, allowed = np.arange(20), np.arange(20, 3000)
    solved: list[int] = []
    whole = panel.solve_columns

    def spy(weights: Affinity, y: np.ndarray, *rest: Any) -> None:
        solved.append(y.shape[1])
        whole(weights, y, *rest)

    monkeypatch.setattr(panel, "solve_columns", spy)
    picks, values = jlp.pick(weights, labeled, allowed, 150, 0)
    assert len(solved) < 30  # one solve per pick would be 150
    assert sum(solved) < 2 * 150
    monkeypatch.setattr(jlp, "KEPT", 0)
    again, same = jlp.pick(weights, labeled, allowed, 150, 0)
    assert again.tolist() == picks.tolist()
    np.testing.assert_allclose(same, values, rtol=1e-9)


def test_doubtful_picks_are_refined(monkeypatch):
    """With columns far too coarse, the sequence stays that of exact arithmetic."""
    weights = graph_of(3, 400, 8, "union", 1, 0)
    labeled, allowed = np.arange(200), np.arange(200, 400)
    want, _ = naive(weights, labeled, allowed, 60, 1, 0.99)
    refined = []
    refine = jlp._Spread._refine
    monkeypatch.setattr(jlp._Spread, "_refine", lambda self: (refined.append(1), refine(self))[1])
    monkeypatch.setattr(jlp, "TOL", 1e-4)
    assert jlp.pick(weights, labeled, allowed, 60, 1)[0].tolist() == want
    assert len(refined) > 3


def test_bounds_hold(monkeypatch):
    """The bound that certifies a pick is no less than the true error of any node."""
    weights = graph_of(5, 300, 6, "reciprocal", 1, 5)
    inverse = np.linalg.inv(np.eye(300) - 0.99 * sparse(weights).toarray())
    monkeypatch.setattr(jlp, "TOL", 1e-3)
    spread = jlp._Spread(weights, np.array([0, 7]), 0.99)
    open_ = np.ones(300, bool)
    for node in (9, 250, 31):
        spread.add(node, open_, 4)
        true = inverse @ spread._delta
        bound = spread._scale * spread._gain * spread._error
        assert (np.abs(true - spread.g) <= bound).all()
        assert bound.max() < 1
        assert np.abs(true - spread.g).max() > 1e-9  # there is an error to bound


@pytest.fixture
def no_graph() -> Affinity:
    return affinity(np.array([[1], [0], [3], [2]]), np.full((4, 1), 1.9, np.float32))  # opposite: no edge at all


def test_without_edges_all_tie_and_are_drawn_at_random(no_graph):
    picks = {tuple(jlp.pick(no_graph, np.array([0]), np.array([1, 2, 3]), 2, seed)[0]) for seed in range(60)}
    assert len(picks) == 6  # all ordered pairs


def test_ties_of_equals_are_drawn_at_random():
    """A square of four equal corners: opposite the label, or any when there is none."""
    ids = np.array([[1, 3], [0, 2], [1, 3], [2, 0]])
    weights = affinity(ids, np.full((4, 2), 0.5, np.float32))
    none, every = np.empty(0, np.int64), np.arange(4)
    assert {int(jlp.pick(weights, none, every, 1, seed)[0][0]) for seed in range(40)} == {0, 1, 2, 3}
    assert {int(jlp.pick(weights, none, every, 2, seed)[0].sum() % 2) for seed in range(40)} == {0}  # opposite
    assert {int(jlp.pick(weights, np.array([0, 2]), every[1::2], 1, seed)[0][0]) for seed in range(40)} == {1, 3}


def test_bits_do_not_depend_on_threads():
    weights = graph_of(1, 2500, 8, "union", 1, 0)
    found = []
    for threads in (1, 4):
        blocks.set_threads(threads)
        found.append(jlp.pick(weights, np.arange(9), np.arange(9, 2500), 40, 0))
    blocks.set_threads(None)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 80), k=st.integers(1, 4), islands=st.integers(1, 9))
def test_components_are_those_of_scipy(seed, count, k, islands):
    weights = graph_of(seed, count, min(k, count - 1), "reciprocal", islands, 0)
    found = components(weights.starts, weights.columns)
    want = connected_components(sparse(weights), directed=False)[1]
    assert len({*zip(found.tolist(), want.tolist(), strict=True)}) == len({*found.tolist()}) == len({*want.tolist()})


def _faults() -> Iterator[tuple[tuple[Any, ...], str]]:
    one, two = np.array([0]), np.array([1, 2])
    yield (one, two, 3), r"count is 3, but it must lie in 0\.\.2"
    yield (one, two, -1), "count is -1"
    yield (one, np.array([1, 4]), 1), r"allowed holds id 4, outside 0\.\.3"
    yield (np.array([-1]), two, 1), "labeled holds id -1"
    yield (one, np.array([0, 1]), 1), "no id is both"
    yield (one, np.array([1, 1]), 1), "distinct"
    yield (one, two, 1, 0, 1.0), "alpha is 1.0"
    yield (one, two, 1, 0, 0.0), "alpha is 0.0"


@pytest.mark.parametrize(("arguments", "message"), list(_faults()))
def test_faults_name_the_value(no_graph, arguments, message):
    with pytest.raises(ValueError, match=message):
        jlp.pick(no_graph, *(arguments if len(arguments) > 3 else (*arguments, 0)))
