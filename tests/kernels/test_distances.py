import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.coverage import _locate
from ray_al.kernels.geometry import Euclidean, GradientEmbedding
from ray_al.kernels.outer_distances import subtract_largest
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
