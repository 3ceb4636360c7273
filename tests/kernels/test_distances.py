import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.coverage import _locate
from ray_al.kernels.geometry import Euclidean, GradientEmbedding
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
    parts, out = np.array([part, *rng.random(3)]), np.empty(4, np.int64)
    _locate(free, best, np.full(4, 16), 16, parts, out)  # a last block, of 7 rows
    values = np.where(free, best, 0.0)[16:]
    sums = np.cumsum(values)
    for place, u in zip(out, parts, strict=True):
        assert 16 <= place < 23
        if sums[-1] > 0:
            assert values[place - 16] > 0
            assert sums[place - 16] > u * sums[-1] or sums[place - 16] == sums[-1]
            assert sums[place - 16] - values[place - 16] <= u * sums[-1]
