import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import blocks, label_propagation, panel
from ray_al.kernels.affinity import affinity
from ray_al.kernels.label_propagation import Sources, solve
from ray_al.kernels.neighbors import UnitRows, build_index, graph_blocks, unit_graph
from ray_al.kernels.pseudo_labels import extend, label_sources, probabilities, pseudo_labels


def knn(count, k, seed=0, clusters=4, width=6):
    """ids and distances (N, k) of clustered rows of length 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((clusters, width))[rng.integers(0, clusters, count)]
    unit = UnitRows(x + 0.4 * rng.standard_normal((count, width)))
    parts = list(graph_blocks(build_index(unit), unit, k))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([far for _, far in parts])


def dense(weights):
    """W (N, N) float64."""
    out = np.zeros((weights.count, weights.count))
    for i in range(weights.count):
        row = slice(weights.starts[i], weights.starts[i + 1])
        assert (np.diff(weights.columns[row]) > 0).all()
        out[i, weights.columns[row]] = weights.values[row]
    return out


def naive_affinity(ids, distances, gamma, graph):
    a = np.zeros((len(ids), len(ids)))
    np.put_along_axis(a, ids.astype(np.int64), np.maximum(1 - distances.astype(float) ** 2 / 2, 0) ** gamma, 1)
    w = a + a.T if graph == "union" else np.where((a > 0) & (a.T > 0), a, 0)
    degree = w.sum(1)
    root = np.divide(1, np.sqrt(degree), where=degree > 0, out=np.zeros(len(ids)))
    return root[:, None] * w * root


def table(sources, count):
    y = np.zeros((count, sources.count))
    y[sources.nodes, sources.columns] = sources.values
    return y


def some_sources(rng, count, columns, alpha=0.99, tol=1e-6, iterations=None):
    labeled = rng.permutation(count)[: max(columns, count // 10)]
    return label_sources(labeled, rng.integers(0, columns, len(labeled)), columns, alpha, tol, iterations)


@pytest.mark.parametrize("graph", ["union", "reciprocal"])
@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 60), k=st.integers(1, 12), seed=st.integers(0, 99), gamma=st.sampled_from([1.0, 3.0, 0.5]))
def test_affinity_is_that_of_dense_matrices(graph, count, k, seed, gamma):
    ids, far = knn(count, min(k, count - 1), seed)
    found = dense(affinity(ids, far, gamma, graph))
    np.testing.assert_allclose(found, naive_affinity(ids, far, gamma, graph), rtol=1e-5, atol=1e-9)
    assert np.array_equal(found, found.T)
    assert (np.diag(found) == 0).all()


@pytest.mark.parametrize("graph", ["union", "reciprocal"])
@pytest.mark.parametrize("index", ["flat", "hnsw"])
@settings(max_examples=10, deadline=None)
@given(copies=st.integers(2, 30), k=st.integers(1, 8), seed=st.integers(0, 99))
def test_duplicates_are_neighbors_and_a_row_itself_is_not(graph, index, copies, k, seed):
    """More copies of a row than it has neighbors: its own id then is anywhere among the nearest, or nowhere."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 4))
    x[rng.permutation(60)[:copies]] = x[0]
    ids, far = unit_graph(x.astype(np.float32), k, index)
    assert ids.shape == far.shape == (60, k)
    assert all(len({i, *row}) == k + 1 for i, row in enumerate(ids.tolist()))
    found = dense(affinity(ids, far, graph=graph))
    np.testing.assert_allclose(found, naive_affinity(ids, far, 3.0, graph), rtol=1e-5, atol=1e-9)
    assert np.array_equal(found, found.T)
    assert (np.diag(found) == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(3, 80),
    k=st.integers(1, 8),
    seed=st.integers(0, 99),
    columns=st.integers(1, 5),
    alpha=st.sampled_from([0.0, 0.5, 0.99, 0.999]),
    graph=st.sampled_from(["union", "reciprocal"]),
)
def test_solution_is_that_of_a_dense_solver(count, k, seed, columns, alpha, graph):
    weights = affinity(*knn(count, min(k, count - 1), seed), graph=graph)
    sources = some_sources(np.random.default_rng(seed), count, columns, alpha, tol=1e-9)
    (z,) = solve(weights, [sources])
    assert z.shape == (count, columns)
    assert z.dtype == np.float32
    want = np.linalg.solve(np.eye(count) - alpha * dense(weights), table(sources, count))
    np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-6 * np.abs(want).max(initial=1e-9))


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-7])
def test_the_residual_is_within_the_tolerance(tol):
    weights = affinity(*knn(3000, 20))
    sources = some_sources(np.random.default_rng(0), 3000, 7, tol=tol)
    (z,) = solve(weights, [sources])
    y = table(sources, 3000)
    residual = np.linalg.norm(y - (z - 0.99 * (dense(weights) @ z)), axis=0) / np.linalg.norm(y, axis=0)
    assert (residual < tol + 5e-7).all()  # what rounding the answer to float32 adds


def plain_cg(a, b, iterations):
    """Conjugate gradients of one column in float64, as in any textbook."""
    z, r, p = np.zeros_like(b), b.copy(), b.copy()
    for _ in range(iterations):
        step = (r @ r) / (p @ a @ p)
        z, left = z + step * p, r - step * (a @ p)
        p, r = left + (left @ left) / (r @ r) * p, left
    return z


def test_a_few_iterations_are_those_of_plain_conjugate_gradients():
    weights = affinity(*knn(400, 10))
    sources = some_sources(np.random.default_rng(1), 400, 3, tol=1e-12, iterations=20)
    (z,) = solve(weights, [sources])
    a, y = np.eye(400) - 0.99 * dense(weights), table(sources, 400)
    for column in range(3):
        np.testing.assert_allclose(z[:, column], plain_cg(a, y[:, column], 20), rtol=2e-4, atol=1e-7)


@functools.cache
def three_blocks():
    return affinity(*knn(9000, 5, clusters=40))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_bits_are_those_of_a_request_alone(data):
    """Whatever is solved beside it: other widths, alphas, tolerances, ends."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    weights = three_blocks()
    requests = []
    for _ in range(data.draw(st.integers(2, 6))):
        columns = data.draw(st.sampled_from([1, 2, 3, 8, 11, 40]))
        alpha, tol = data.draw(st.sampled_from([0.3, 0.9, 0.99])), data.draw(st.sampled_from([1e-2, 1e-4]))
        requests.append(some_sources(rng, 9000, columns, alpha, tol, data.draw(st.sampled_from([None, 1, 9]))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel, "ROWS", 512)  # many blocks: sums of one column, too, go in their order
        together = solve(weights, requests)
        before = unrounded(weights, requests)
        for place in rng.permutation(len(requests))[:2]:
            assert np.array_equal(solve(weights, [requests[place]])[0], together[place])
            last = column_of(requests[place], requests[place].count - 1)
            assert np.array_equal(unrounded(weights, [last])[0][:, 0], before[place][:, -1])


def unrounded(weights, requests):
    """The solutions in float64, all columns in one panel: float32 would hide most differences of their last bits."""
    out = [np.zeros((weights.count, request.count)) for request in requests]
    where = [(r, c) for r, request in enumerate(requests) for c in range(request.count)]
    label_propagation._solve_panel(weights, requests, where, out)
    return out


def column_of(request, column):
    own = request.columns == column
    nodes, values = request.nodes[own], request.values[own]
    return dataclasses.replace(request, nodes=nodes, columns=np.zeros(len(nodes), np.int64), values=values, count=1)


def test_bits_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(panel, "ROWS", 256)
    weights = affinity(*knn(2000, 10))
    sources = some_sources(np.random.default_rng(0), 2000, 20)
    found = []
    for threads in (1, 4):
        blocks.set_threads(threads)
        found.append(solve(weights, [sources])[0])
    blocks.set_threads(None)
    assert np.array_equal(*found)


def test_nodes_that_nothing_reaches_stay_zero_and_unsure():
    """Two components, labels in one of them; an isolated node; a class without labels."""
    ids = np.array([[1], [0], [3], [2], [0]])
    far = np.array([[0.1], [0.1], [0.1], [0.1], [1.9]], np.float32)  # node 4 is opposite to its neighbor: cos < 0
    weights = affinity(ids, far)
    assert weights.starts.tolist() == [0, 1, 2, 3, 4, 4]
    (z,) = solve(weights, [label_sources(np.array([0]), np.array([1]), 3, 0.99)])
    assert (z[2:] == 0).all()
    assert (z[:, [0, 2]] == 0).all()
    assert np.isfinite(z).all()
    labels, sure = pseudo_labels(z, np.array([0]), np.array([1]))
    assert labels.tolist() == [1, 1, 0, 0, 0]
    assert sure.tolist() == [1, 1, 0, 0, 0]


def test_pseudo_labels_are_a_plain_reading():
    rng = np.random.default_rng(0)
    z = np.where(rng.random((300, 4)) < 0.2, -0.1, rng.random((300, 4))).astype(np.float32)
    z[5] = [-1, 0, -2, 0]
    ids, labels = np.array([7, 5, 1]), np.array([0, 3, 2])
    for relative in (False, True):
        found, sure = pseudo_labels(z, ids, labels, relative)
        weights = np.zeros(300)
        for i, row in enumerate(np.maximum(z.astype(float), 0)):
            if row.sum() > 0:
                p = row / row.sum()
                weights[i] = 1 + sum(v * np.log(v) for v in p if v > 0) / np.log(4)
        want = z.argmax(1)
        if relative:
            weights /= weights.max()
        want[ids], weights[ids] = labels, 1
        assert np.array_equal(found, want)
        np.testing.assert_allclose(sure, weights, atol=1e-6)
    assert pseudo_labels(z[:, :1], ids, labels * 0)[1].max() == 1


def test_sources_are_balanced_over_classes():
    sources = label_sources(np.array([4, 2, 9]), np.array([1, 1, 0]), 3, 0.9)
    assert table(sources, 10)[[4, 2, 9]].tolist() == [[0, 0.5, 0], [0, 0.5, 0], [1, 0, 0]]
    plain = label_sources(np.array([4, 2, 9]), np.array([1, 1, 0]), 3, 0.9, balanced=False)
    assert plain.values.tolist() == [1, 1, 1]


def test_a_solve_without_end_says_so(monkeypatch):
    monkeypatch.setattr(panel, "MOST", 3)
    weights = affinity(*knn(400, 5))
    sources = some_sources(np.random.default_rng(0), 400, 3)
    with pytest.raises(ValueError, match=r"times the tolerance away after 3 iterations"):
        solve(weights, [sources])
    assert np.isfinite(solve(weights, [dataclasses.replace(sources, iterations=2)])[0]).all()


def test_faults_name_the_value():
    ids, far = knn(20, 3)
    weights = affinity(ids, far)
    good = label_sources(np.array([1]), np.array([0]), 2, 0.9)
    for changes, message in [
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"tol": 0.0}, "tol is 0.0"),
        ({"nodes": np.array([20])}, r"nodes holds id 20, outside 0\.\.19"),
        ({"values": np.array([np.nan])}, "a source is nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            solve(weights, [dataclasses.replace(good, **changes)])
    for arguments, message in [
        ((ids, far[:, :2]), "two tables"),
        ((ids, far, 3.0, "both"), "unknown graph 'both'; known: union, reciprocal"),
        ((ids, far, 0.0), "gamma is 0.0"),
        ((ids + 17, far), "outside 0..19"),
        ((np.zeros((20, 1), int), far[:, :1]), "its own neighbors"),
        ((ids, far * np.nan), "not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            affinity(*arguments)
    with pytest.raises(ValueError, match="ids holds 3 twice"):
        label_sources(np.array([3, 3]), np.array([0, 1]), 2, 0.9)
    with pytest.raises(ValueError, match="labels holds id 2"):
        label_sources(np.array([3, 4]), np.array([0, 2]), 2, 0.9)


def test_sources_without_an_entry_give_zeros():
    none = np.empty(0, np.int64)
    (z,) = solve(affinity(*knn(20, 3)), [Sources(none, none, np.empty(0), 2)])
    assert (z == 0).all()


def test_new_rows_have_the_mean_of_their_neighbors():
    rng = np.random.default_rng(0)
    z, ids, far = rng.random((300, 7)).astype(np.float32), rng.integers(0, 300, (700, 5)), rng.uniform(0, 2, (700, 5))
    far[9] = 1.9  # all on the other side: no weight is left
    weights = np.maximum(1 - far**2 / 2, 0) ** 2.0
    total = weights.sum(1, keepdims=True)
    want = (weights[:, :, None] * z[ids]).sum(1) / np.where(total > 0, total, 1)
    found = extend(z, ids, far, 2.0)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9)
    assert (found[9] == 0).all()
    assert np.array_equal(extend(z, ids[300:301], far[300:301], 2.0), found[300:301])
    shares = probabilities(np.where(rng.random((300, 7)) < 0.2, -z, z))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert (probabilities(found)[9] == np.float32(1 / 7)).all()
    for arguments, message in [((z, ids + 1, far), "ids holds id 300"), ((z, ids, far * np.nan), "not finite")]:
        with pytest.raises(ValueError, match=message):
            extend(*arguments)
