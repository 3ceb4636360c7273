import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import distances, outer_distances
from ray_al.kernels.compiled import compiled
from ray_al.kernels.coverage import _locate
from ray_al.kernels.dot import dot
from ray_al.kernels.geometry import Euclidean, GradientEmbedding
from ray_al.kernels.halves import loadable
from ray_al.kernels.masks import at_most
from ray_al.kernels.outer_distances import subtract_largest
from ray_al.kernels.vectors import SINGLES
from tests.kernels.matrices import matrices
from tests.kernels.test_kmeanspp import gradient_embeddings, random_probs


def squares_between(rows):
    """(n, n) float64 from differences."""
    return np.square(rows[:, None] - rows[None]).sum(2)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(0, 99))
def test_tables_of_pairs(x, seed):
    ids = np.random.default_rng(seed).integers(0, len(x), 12)  # some of them twice
    found = Euclidean(x).pairs(ids)
    np.testing.assert_allclose(found, squares_between(x[ids].astype(np.float64)), rtol=1e-12)
    assert (found[ids[:, None] == ids] == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 70))
def test_loops_that_share_reads_have_the_bits_of_a_distance_alone(seed, count, width):
    x = np.random.default_rng(seed).standard_normal((count + 1, width)).astype(np.float32)
    rows, shift = x[:-1], x[-1]
    alone = np.array([[distances.square(one, other) for other in rows] for one in rows])
    assert (Euclidean(rows).pairs(np.arange(count)) == alone).all()
    norms = np.empty((2, count), np.float32)
    distances.measure(rows, np.arange(count), shift, norms, np.empty((0, 0), np.uint16))
    assert (norms[0] == np.array([distances.square(row, shift) for row in rows], np.float32)).all()
    assert (norms[1] == np.array([dot(row, row) for row in rows], np.float32)).all()


@pytest.mark.parametrize("apart", [1.0, 1e-4, 1e-7, 0.0])
def test_tables_of_pairs_of_gradients_however_close(apart):
    rng = np.random.default_rng(0)
    h, probs = rng.normal(size=(1, 20)) + apart * rng.normal(size=(30, 20)), random_probs(rng, 1, 4).repeat(30, 0)
    h = h.astype(np.float32)
    g = gradient_embeddings(h, probs)
    found = GradientEmbedding(h, probs).pairs(np.arange(30))
    np.testing.assert_allclose(found, squares_between(g), rtol=1e-4, atol=1e-30)
    assert (np.diag(found) == 0).all()
    assert (found == found.T).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.0, 0.3, 1 - 2**-53]))
def test_places_of_running_sums(seed, part):
    rng = np.random.default_rng(seed)
    free, best = rng.random(23) < 0.6, rng.random(23) * (rng.random(23) < 0.7) * 10.0 ** rng.integers(-20, 20)
    parts, out, starts = np.array([part, *rng.random(5)]), np.empty(6, np.int64), rng.choice([0, 16], 6)
    _locate(free, best, starts, 16, parts, np.argsort(starts), out)  # the last block has 7 rows
    for place, start, u in zip(out, starts, parts, strict=True):
        values = np.where(free, best, 0.0)[start : start + 16]
        sums, at = np.cumsum(values), place - start
        assert 0 <= at < len(values)
        if sums[-1] > 0:
            assert values[at] > 0
            assert sums[at] > u * sums[-1] or sums[at] == sums[-1]
            assert sums[at] - values[at] <= u * sums[-1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9999))
def test_the_first_of_the_largest_probabilities_loses_one(seed):
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 3, (7, rng.integers(1, 6))).astype(np.float32) / 4  # many are equal
    found = probs.copy()
    subtract_largest(found)
    expected = probs - np.eye(probs.shape[1], dtype=np.float32)[probs.argmax(1)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(30, 0), (30,)])
def test_probabilities_of_no_class_are_refused(shape):
    with pytest.raises(ValueError, match=r"does not fit|one class or more"):
        GradientEmbedding(np.zeros((30, 4), np.float32), np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="one class or more"):
        GradientEmbedding(np.zeros((30, 4), np.float32), lambda start, stop: np.zeros(shape, np.float32)[start:stop])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_first_point_covered_alone_or_beside_a_copy(kind):
    """Alone it needs no bounds; the distances have the same bits."""
    rng = np.random.default_rng(0)
    x, probs = rng.normal(size=(3000, 20)).astype(kind), random_probs(rng, 3000, 4)
    for space in (Euclidean(x), GradientEmbedding(x, probs)):
        alone, beside = np.full(3000, np.inf), np.full(3000, np.inf)
        space.cover(alone, np.array([7]))
        space.cover(beside, np.array([7, 7]))
        np.testing.assert_array_equal(alone, beside)
        assert alone[7] == 0
        assert np.isfinite(alone).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    count=st.integers(1, 70),
    width=st.sampled_from([1, 7, 16, 45]),
    kind=st.sampled_from([np.float32, np.float16]),
    bounded=st.floats(0, 1),
)
def test_distances_are_worked_out_where_bounds_allow_them(seed, count, width, kind, bounded):
    """In whole vectors of rows and what is left of them; what a bound rules out is not looked at."""
    rng = np.random.default_rng(seed)
    x, points = rng.normal(size=(count, width)).astype(kind), rng.normal(size=(5, width)).astype(np.float32)
    q, point_q = random_probs(rng, count, 4) - 0.5, random_probs(rng, 5, 4) - 0.5
    where = rng.permutation(count)
    memory = loadable(x[np.argsort(where)])
    outer = [
        (a[:, :, None] * b[:, None].astype(np.float64)).reshape(len(a), -1) for a, b in ((q, x), (point_q, points))
    ]
    gaps = points[:, None].astype(np.float64) - x.astype(np.float64)[None]
    for true, lower, more, most in (
        (np.square(gaps).sum(2), distances.lower, (), (points,)),
        (
            np.square(outer[1][:, None] - outer[0][None]).sum(2),
            outer_distances.lower,
            (q.astype(np.float32),),
            (point_q.astype(np.float32), points),
        ),
    ):
        table = np.where(rng.random(true.shape) < bounded, np.inf, 0.9 * true).astype(np.float32)
        nearest = table.argmin(0).astype(np.int32)
        asked = np.flatnonzero(rng.random(count) < 0.7)
        best = rng.random(count) * true.max()
        wanted = best.copy()
        least = np.where(np.isfinite(table), true, np.inf).min(0)
        least = np.minimum(least, true[nearest, np.arange(count)])  # the nearest is always worked out
        wanted[asked] = np.minimum(best, least)[asked]
        lower(table, nearest, asked, *more, memory, where[asked], *most, best)
        np.testing.assert_allclose(best, wanted, rtol=1e-5, atol=1e-12)


@compiled
def _at_most(row, bars):
    return at_most(row, bars, 0)


def test_nothing_that_is_no_number_is_at_most_a_bar():
    row, bars = np.arange(SINGLES, dtype=np.float32), np.full(SINGLES, 3, np.float32)
    assert _at_most(row, bars) == 0b1111
    row[0] = bars[1] = np.nan
    assert _at_most(row, bars) == 0b1100
