"""Label propagation by torch: every stage against the compiled kernels, or a dense solve in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from ray_al.kernels.affinity import GRAPHS, affinity
from ray_al.kernels.device import propagation as device
from ray_al.kernels.label_propagation import solve
from ray_al.kernels.neighbors import build_index, graph_blocks
from ray_al.kernels.pseudo_labels import label_sources, pseudo_labels
from tests.kernels.devices import DEVICES


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def dense(weights: device.DeviceAffinity) -> np.ndarray:
    count = len(weights.starts) - 1
    return weights.times(torch.eye(count, dtype=torch.float64, device=weights.values.device)).cpu().numpy()


def host_graph(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    parts = list(graph_blocks(build_index(rows), rows, k))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([far for _, far in parts])


def host_dense(ids: np.ndarray, far: np.ndarray, graph: str) -> np.ndarray:
    made = affinity(ids, far, graph=graph)
    out = np.zeros((made.count, made.count))
    for i in range(made.count):
        out[i, made.columns[made.starts[i] : made.starts[i + 1]]] = made.values[made.starts[i] : made.starts[i + 1]]
    return out


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("graph", GRAPHS)
@settings(max_examples=25, deadline=None)
@given(count=some.integers(3, 60), k=some.integers(1, 8), seed=some.integers(0, 10**6))
def test_the_affinity_is_that_of_the_compiled_kernels(where, graph, count, k, seed):
    rows, k = unit_rows(count, 5, seed), min(k, count - 1)
    own = device.affinity(*device.nearest(torch.from_numpy(rows).to(where), k), graph=graph)
    found = dense(own)
    np.testing.assert_allclose(found, host_dense(*host_graph(rows, k), graph), atol=1e-5)
    assert (np.diagonal(found) == 0).all()
    np.testing.assert_allclose(found, found.T, atol=1e-12)


@pytest.mark.parametrize("where", DEVICES)
def test_itself_is_left_out_by_id_even_among_duplicates(where):
    rows = np.repeat(unit_rows(5, 4, 0), 4, axis=0)
    ids, cosines = device.nearest(torch.from_numpy(rows).to(where), 3)
    for row, near in enumerate(ids.tolist()):
        assert sorted(near) == [other for other in range(row // 4 * 4, row // 4 * 4 + 4) if other != row]
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_blocks_of_rows_change_nothing(where, rows_at_once, monkeypatch):
    x = torch.from_numpy(unit_rows(40, 6, 1)).to(where)
    expected = device.nearest(x, 5)
    monkeypatch.setattr(device, "_SCORES", 4 * 40 * rows_at_once)
    found = device.nearest(x, 5)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("columns_at_once", [1, 2, 100])
def test_solutions_are_those_of_a_dense_solve(where, graph, columns_at_once, monkeypatch):
    rows = torch.from_numpy(unit_rows(50, 4, 2)).to(where)
    weights = device.affinity(*device.nearest(rows, 6), graph=graph)
    monkeypatch.setattr(device, "_EDGES", 8 * len(weights.columns) * columns_at_once)
    ids = torch.arange(12, device=where)
    y = device.sources(ids, ids % 3, 50, 3)
    exact = np.linalg.solve(np.eye(50) - 0.99 * dense(weights), y.cpu().numpy())
    found = device.solve(weights, y, 0.99, 1e-12, 500).cpu().numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-9 * np.abs(exact).max())


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("graph", GRAPHS)
def test_pseudo_labels_are_those_of_the_compiled_kernels(where, graph, balanced):
    """Two blobs without labels in one of them, isolated rows in the reciprocal graph, and 20 iterations alone."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(size=(120, 6)) * 0.4 + 2, rng.normal(size=(30, 6)) * 0.4 - 2]).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labeled = np.arange(40)  # the lower part of the pool, all of it in the first blob
    truth = np.r_[rng.integers(0, 3, 25), np.full(15, 2)]
    request = label_sources(labeled, truth, 4, 0.99, 1e-6, 20, balanced)
    expected = pseudo_labels(solve(affinity(*host_graph(rows, 5), graph=graph), [request])[0], labeled, truth)
    x, ids, labels = (torch.from_numpy(part).to(where) for part in (rows, labeled, truth))
    weights = device.affinity(*device.nearest(x, 5), graph=graph)
    z = device.solve(weights, device.sources(ids, labels, 150, 4, balanced), 0.99, 1e-6, 20)
    best, sure = (part.cpu().numpy() for part in device.pseudo_labels(z, ids, labels))
    np.testing.assert_allclose(sure, expected[1], atol=2e-4)
    clear = expected[1] > 1e-3
    np.testing.assert_array_equal(best[clear], expected[0][clear])
    assert np.isfinite(sure).all()
    assert (sure[120:] == 0).all()  # where no label arrives
    assert (best[:40] == truth).all()
    assert (sure[:40] == 1).all()


def test_no_row_reached_gives_weights_of_zero_and_no_nan():
    best, sure = device.pseudo_labels(torch.zeros(4, 3), torch.tensor([0]), torch.tensor([2]))
    assert sure.tolist() == [1, 0, 0, 0]
    assert best.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: device.nearest(x, 9), r"k is 9, but it must lie in 1\.\.8"),
        (lambda x: device.nearest(x * float("nan"), 2), "x is not finite"),
        (lambda x: device.affinity(*device.nearest(x, 2), graph="or"), "unknown graph 'or'; known: union, reciprocal"),
        (lambda x: device.solve(device.affinity(*device.nearest(x, 2)), x, 1.0), "alpha is 1.0"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.from_numpy(unit_rows(9, 3, 0)))
