import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import approximate_index, blocks, flat_index
from ray_al.kernels.affinity import affinity
from ray_al.kernels.neighbors import (
    ShardedNeighbors,
    UnitRows,
    build_index,
    graph_blocks,
    nearest,
    neighbors_of,
    unit_graph,
)
from tests.kernels.matrices import NO_IDS, distances, matrices


def graph(index, x, k):
    parts = list(graph_blocks(index, x, k))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([far for _, far in parts])


def naive(queries, x, k, free=None):
    """ids (q, k) by (float64 distance, id), and the distances; -1 and infinity where there are no more."""
    squares = np.square(queries.astype(float)[:, None] - x.astype(float)[None]).sum(2)
    if free is not None:
        squares[:, ~free] = np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(x)), squares.shape), squares), axis=-1)[:, :k]
    far = np.take_along_axis(squares, order, 1)
    pad = ((0, 0), (0, k - order.shape[1]))
    far = np.pad(far, pad, constant_values=np.inf)
    return np.where(np.isinf(far), -1, np.pad(order, pad)), far


@settings(max_examples=100, deadline=None)
@given(matrices(max_rows=90), st.data())
def test_flat_search_is_exact(x, data):
    """Ids too, but where float64 sums in another order cannot tell two rows apart."""
    k = data.draw(st.sampled_from(sorted({0, 1, min(3, len(x)), len(x), len(x) + 2})))
    free = None if data.draw(st.booleans()) else np.random.default_rng(0).random(len(x)) < 0.6
    rng = np.random.default_rng(1)
    queries = x[rng.integers(0, len(x), 6)].astype(np.float32)
    queries[::2] += 0.1 * rng.standard_normal(queries[::2].shape).astype(np.float32)
    ids, squares = build_index(x).search(queries, k, free)
    want, far = naive(queries, x, k, free)
    assert ids.shape == squares.shape == (6, k)
    np.testing.assert_allclose(squares, far, rtol=1e-12, atol=0)
    finite = np.minimum(far, 1e300)
    told_apart = np.diff(finite, axis=1, prepend=-1e300, append=2e300) > 1e-12 * finite[finite < 1e300].max(initial=1)
    clear = told_apart[:, :-1] & told_apart[:, 1:] if k else np.empty((6, 0), bool)
    np.testing.assert_array_equal(ids[clear], want[clear])


@settings(max_examples=30, deadline=None)
@given(matrices(max_rows=90), st.data())
def test_an_answer_depends_on_query_and_rows_alone(x, data):
    """Not on the queries beside it, on shards, on blocks, nor on threads."""
    k = data.draw(st.integers(1, 8))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(x)), max_size=3)))
    queries = x.astype(np.float32)
    ids, squares = build_index(x).search(queries, k)
    for row in range(0, len(x), 7):
        alone = build_index(x).search(queries[row : row + 1], k)
        assert np.array_equal(alone[0][0], ids[row])
        assert np.array_equal(alone[1][0], squares[row])
    edges = sorted({0, *cuts, len(x)})
    sharded = ShardedNeighbors([build_index(x[a:b]) for a, b in itertools.pairwise(edges)])
    free = np.random.default_rng(2).random(len(x)) < 0.7
    for some in (None, free):
        for a, b in zip(sharded.search(queries, k, some), build_index(x).search(queries, k, some), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_threads_and_company_change_no_bit(kind, monkeypatch):
    monkeypatch.setattr(approximate_index, "HNSW_ROWS", 2048)
    monkeypatch.setattr(flat_index, "_ROWS", 256)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 24))[rng.integers(0, 40, 5000)] + 0.3 * rng.standard_normal((5000, 24))).astype("f2")
    queries = x[:600].astype(np.float32)
    free = rng.random(len(x)) < 0.8
    found = []
    for threads in (1, 3):
        blocks.set_threads(threads)
        index = build_index(x, kind)
        found.append((*index.search(queries, 10), *index.search(queries, 10, free)))
    blocks.set_threads(None)
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a, b)
    for start, stop in ((0, 1), (300, 317)):
        assert np.array_equal(index.search(queries[start:stop], 10)[0], found[0][0][start:stop])


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_find_most(kind, monkeypatch):
    monkeypatch.setattr(approximate_index, "HNSW_ROWS", 4096)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((60, 16))[rng.integers(0, 60, 6000)] + 0.4 * rng.standard_normal((6000, 16))) * 1e5
    x = (x + 3e5).astype(np.float32)  # beyond float16's range
    index, exact = build_index(x, kind), build_index(x)
    free = rng.random(len(x)) < 0.5
    for some in (None, free):
        ids, squares = index.search(x[:500], 20, some)
        want, _ = exact.search(x[:500], 20, some)
        assert np.mean([np.isin(a, b).mean() for a, b in zip(ids, want, strict=True)]) > 0.95
        assert some is None or some[ids].all()
        np.testing.assert_allclose(np.sqrt(squares), np.take_along_axis(distances(x[:500], x), ids, 1), rtol=1e-9)
        assert (np.diff(squares, axis=1) >= 0).all()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@settings(max_examples=25, deadline=None)
@given(x=matrices(max_rows=60), data=st.data())
def test_approximate_answers_are_complete(kind, x, data):
    """As many ids as are free, whatever faiss proposes; none of them twice."""
    k = data.draw(st.integers(1, 12))
    free = np.random.default_rng(0).random(len(x)) < data.draw(st.sampled_from([0.05, 0.9, 1.0]))
    ids, squares = build_index(x, kind).search(x[:5].astype(np.float32), k, free)
    for row, far in zip(ids, squares, strict=True):
        real = row[row >= 0]
        assert len(real) == len(set(real.tolist())) == min(k, free.sum())
        assert free[real].all()
        assert np.isinf(far[len(real) :]).all()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@settings(max_examples=40, deadline=None)
@given(x=matrices(max_rows=60), data=st.data())
def test_matches_are_distinct_free_and_nearest(kind, x, data):
    exclude = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), max_size=len(x))), np.int64)
    free = np.setdiff1d(np.arange(len(x)), exclude)
    count = data.draw(st.integers(0, len(free)))
    rng = np.random.default_rng(0)
    queries = x[rng.integers(0, len(x), count)].astype(np.float32)
    queries[::2] += 0.1 * rng.standard_normal(queries[::2].shape).astype(np.float32)
    ids = nearest(build_index(x, kind), queries, exclude)
    assert ids.dtype == np.int64
    table = distances(queries, x)
    for query, match in enumerate(ids):
        assert match in free
        if kind == "flat":
            assert table[query, match] <= table[query, free].min() * (1 + 1e-9)
        free = free[free != match]


@settings(max_examples=60, deadline=None)
@given(matrices(max_rows=60), st.data())
def test_graph_leaves_each_item_out_by_id(x, data):
    k = data.draw(st.sampled_from(sorted({0, min(3, len(x) - 1), len(x) - 1})))
    ids, far = graph(build_index(x), x, k)
    assert ids.shape == far.shape == (len(x), k)
    assert ids.dtype == np.int32
    assert far.dtype == np.float32
    table = distances(x, x)
    for row in range(len(x)):
        assert row not in ids[row]
        assert len(set(ids[row].tolist())) == k
    np.testing.assert_allclose(far, np.take_along_axis(table, ids, 1), rtol=1e-6, atol=1e-7)
    np.fill_diagonal(table, np.inf)
    np.testing.assert_allclose(far, np.sort(table, 1)[:, :k], rtol=1e-6, atol=1e-7)
    some = np.arange(0, len(x), 2)
    assert np.array_equal(neighbors_of(build_index(x), x, some, k)[0], ids[some])


def test_a_crowd_of_duplicates_does_not_stop_the_search():
    x = np.zeros((300, 4), np.float32)
    x[250:] = np.arange(50)[:, None] + 1
    for kind in ("flat", "hnsw", "ivf"):
        index = build_index(x, kind)
        ids = nearest(index, np.zeros((260, 4), np.float32), NO_IDS)
        assert sorted(ids[:250].tolist()) == list(range(250))
        np.testing.assert_array_equal(ids[250:], np.arange(250, 260))
        ids, far = graph(index, x, 5)
        assert not (ids == np.arange(300)[:, None]).any()
        assert (far[:250] == 0).all()


def test_unit_rows_are_nearest_by_cosine():
    x = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float16)
    unit = UnitRows(x)
    ids, far = graph(build_index(unit), unit, 5)
    wide = x.astype(float) / np.maximum(np.linalg.norm(x.astype(float), axis=1, keepdims=True), 1e-30)
    cosine = wide @ wide.T
    np.testing.assert_allclose(1 - far**2 / 2, np.take_along_axis(cosine, ids, 1), atol=1e-6)
    np.fill_diagonal(cosine, -2)
    np.testing.assert_allclose(1 - far**2 / 2, -np.sort(-cosine, 1)[:, :5], atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 200])
def test_rows_of_zeros_are_near_each_other_and_no_others(width):
    """In many dimensions cosines are small: zeros, at distance 1 of all, would be everybody's nearest."""
    x = np.random.default_rng(0).standard_normal((300, width)).astype(np.float32)
    zeros, others = np.arange(0, 300, 10), np.setdiff1d(np.arange(300), np.arange(0, 300, 10))
    alone, far_alone = unit_graph(x[others], 8)
    x[zeros] = 0
    ids, far = unit_graph(x, 8)
    np.testing.assert_array_equal(far[zeros], 0)
    assert np.isin(ids[zeros], zeros).all()
    near = far_alone < 1.5  # what is at an obtuse angle has no weight in any graph
    np.testing.assert_array_equal(np.isin(ids[others], zeros)[near], False)
    np.testing.assert_array_equal(ids[others][near], others[alone][near])
    weights = affinity(ids, far)
    for row in others:
        assert not np.isin(weights.columns[weights.starts[row] : weights.starts[row + 1]], zeros).any()


def test_rows_on_disk_are_not_copied(tmp_path, monkeypatch):
    """Flat search over memory-mapped float16 rows takes the memory of a few blocks."""
    rows, width = 60_000, 128
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (rows, width))
    x[:] = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float16)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    build_index(x[:5000]).search(np.asarray(x[:8], np.float32), 5)  # what is compiled at first use
    converted = []  # torch's memory, which tracemalloc does not see
    plain = blocks.float_rows
    monkeypatch.setattr(blocks, "float_rows", lambda *args: converted.append(args[2] - args[1]) or plain(*args))
    tracemalloc.start()
    build_index(x).search(np.asarray(x[:64], np.float32), 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 8
    assert max(converted) <= 2048


def test_the_way_of_a_gpu_gives_the_same_answers(monkeypatch):
    """Without one: faiss's search on the processor stands in for the call that would go there."""
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((700, 12)), np.zeros((9, 12))]).astype(np.float16)
    queries, free = x[::5].astype(np.float32), rng.random(len(x)) < 0.5
    want = [build_index(x).search(queries, 10), build_index(x).search(queries, 10, free)]
    monkeypatch.setattr(flat_index, "_gpu_resources", lambda: "a GPU")
    monkeypatch.setattr(flat_index, "_GPU_BYTES", 4 * 12 * 300)  # several visits
    seen = []
    monkeypatch.setattr(
        faiss, "knn_gpu", lambda gpu, *arguments: seen.append(gpu) or faiss.knn(*arguments), raising=False
    )
    found = [build_index(x).search(queries, 10), build_index(x).search(queries, 10, free)]
    for a, b in zip(want, found, strict=True):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
    assert seen == ["a GPU"] * 6


def test_bad_input_names_the_value():
    x = np.zeros((5, 2), np.float32)
    index = build_index(x)
    with pytest.raises(ValueError, match="k is 3"):
        nearest(index, np.zeros((3, 2), np.float32), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"queries is a matrix \(q, d\), got shape \(3,\)"):
        nearest(index, np.zeros(3, np.float32), NO_IDS)
    with pytest.raises(ValueError, match="queries is nan at row 0, column 1"):
        nearest(index, np.array([[0, np.nan]], np.float32), NO_IDS)
    with pytest.raises(ValueError, match="k is 5"):
        graph(index, x, 5)
    with pytest.raises(ValueError, match="unknown index 'tree'; known: flat, hnsw, ivf"):
        build_index(x, "tree")
    for kind in ("flat", "hnsw", "ivf"):
        with pytest.raises(ValueError, match="x is inf"):
            build_index(np.full((2, 2), np.inf, np.float32), kind)
    for large in (1e19, 1e30):  # the square of the first is finite, but not twice a product
        with pytest.raises(ValueError, match="too large"):
            build_index(np.array([[large], [-large]], np.float32))
        with pytest.raises(ValueError, match="too large"):
            index.search(np.full((1, 2), large, np.float32), 1)
