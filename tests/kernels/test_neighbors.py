import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.neighbors import NeighborIndex
from tests.kernels.matrices import NO_IDS, distances, matrices


@settings(max_examples=60, deadline=None)
@given(matrices(max_rows=60), st.data())
def test_nearest_is_distinct_free_and_nearest(x, data):
    exclude = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), max_size=len(x))), np.int64)
    free = np.setdiff1d(np.arange(len(x)), exclude)
    count = data.draw(st.integers(0, len(free)))
    rng = np.random.default_rng(0)
    queries = x[rng.integers(0, len(x), count)].astype(np.float32)
    queries[::2] += 0.1 * rng.standard_normal(queries[::2].shape).astype(np.float32)
    ids = NeighborIndex(x).nearest(queries, exclude)
    assert ids.dtype == np.int64
    table = distances(queries, x)
    for query, match in enumerate(ids):
        assert match in free
        assert table[query, match] <= table[query, free].min() * (1 + 1e-4) + 1e-9
        free = free[free != match]


@settings(max_examples=60, deadline=None)
@given(matrices(max_rows=60), st.data())
def test_graph_leaves_each_item_out_by_id(x, data):
    k = data.draw(st.sampled_from(sorted({0, min(3, len(x) - 1), len(x) - 1})))
    ids, far = NeighborIndex(x).graph(k)
    assert ids.shape == far.shape == (len(x), k)
    assert ids.dtype == np.int64
    assert far.dtype == np.float32
    table = distances(x, x)
    for row in range(len(x)):
        assert row not in ids[row]
        assert len(set(ids[row].tolist())) == k
    np.testing.assert_allclose(far, np.take_along_axis(table, ids, 1), rtol=1e-5, atol=1e-7)
    np.fill_diagonal(table, np.inf)
    # faiss ranks by float32 products: among rows closer than their rounding it may take a farther one.
    rounding = 1e-3 * np.abs(x.astype(float)).max()
    np.testing.assert_allclose(far, np.sort(table, 1)[:, :k], rtol=1e-4, atol=rounding)


def test_a_crowd_of_duplicates_does_not_stop_the_search():
    x = np.zeros((300, 4), np.float32)
    x[250:] = np.arange(50)[:, None] + 1
    index = NeighborIndex(x)
    ids = index.nearest(np.zeros((260, 4), np.float32), NO_IDS)
    assert sorted(ids[:250].tolist()) == list(range(250))
    np.testing.assert_array_equal(ids[250:], np.arange(250, 260))
    graph, far = index.graph(5)
    assert not (graph == np.arange(300)[:, None]).any()
    assert (far[:250] == 0).all()


def test_bad_input_names_the_value():
    index = NeighborIndex(np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="k is 3"):
        index.nearest(np.zeros((3, 2), np.float32), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"queries \(1, 3\) do not fit"):
        index.nearest(np.zeros((1, 3), np.float32), NO_IDS)
    with pytest.raises(ValueError, match="queries is nan at row 0, column 1"):
        index.nearest(np.array([[0, np.nan]], np.float32), NO_IDS)
    with pytest.raises(ValueError, match="k is 5"):
        index.graph(5)
    with pytest.raises(ValueError, match="x is inf"):
        NeighborIndex(np.full((2, 2), np.inf, np.float32))
