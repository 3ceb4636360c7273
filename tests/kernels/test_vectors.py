"""Vectors in compiled loops against numpy."""

import numba
import numpy as np
import pytest

from ray_al.kernels.compiled import compiled
from ray_al.kernels.dot import dot
from ray_al.kernels.halves import loadable
from ray_al.kernels.vectors import DOUBLES, LINE, SINGLES, aligned, fma, load, spread, store, store_totals, total

STEPS = {np.float32: SINGLES, np.float64: DOUBLES}


@compiled
def _axpy(a, x, y, step, out):
    """out = a x + y; returns the sum of all."""
    s = spread(a)
    sums = spread(a - a)
    for k in range(0, len(x), step):
        row = fma(s, load(x, k), load(y, k))
        store(out, k, row)
        sums = fma(spread(a / a), row, sums)
    return total(sums)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("skip", [0, 1, 3])  # memory of any alignment
def test_loops_of_vectors_are_numpys(kind, skip):
    rng, size = np.random.default_rng(0), 5 * STEPS[kind]
    x, y, out = (rng.standard_normal(size + skip).astype(kind)[skip:] for _ in range(3))
    added = _axpy(kind(3), x, y, STEPS[kind], out)
    np.testing.assert_allclose(out, 3 * x.astype(np.float64) + y, rtol=8 * np.finfo(kind).eps, atol=1e-6)
    assert out.dtype == kind
    assert added == pytest.approx(out.sum(dtype=np.float64), rel=1e-5)


def test_numbers_that_are_not_side_by_side_are_refused():
    x = np.zeros((64, 2), np.float32)[:, 0]
    with pytest.raises(numba.TypingError, match="side by side"):
        _axpy(np.float32(3), x, x, SINGLES, x.copy())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_memory_begins_at_a_cache_line(kind):
    for rows, width in ((1, 16), (7, 48), (64, 272), (0, 16)):
        found = aligned(np.empty(0, kind), rows, width)
        assert (found.shape, found.dtype, found.flags.c_contiguous) == ((rows, width), kind, True)
        assert rows == 0 or found.ctypes.data % LINE == 0  # nothing lies nowhere
        found[:] = 1  # it is writable and whole
        assert found.sum() == rows * width


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 24, 70])
def test_sums_of_products_of_any_length(kind, size):
    x, y = np.random.default_rng(size).standard_normal((2, size)).astype(kind)
    given = [loadable(row) if kind == np.float16 else row for row in (x, y)]
    assert dot(*given) == pytest.approx(x.astype(np.float64) @ y.astype(np.float64), abs=1e-12)


@compiled
def _totals(rows, step, out):
    store_totals(
        out, 2,
        (
            load(rows[0], 0), load(rows[1], 0), load(rows[2], 0), load(rows[3], 0),
            load(rows[4], 0), load(rows[5], 0), load(rows[6], 0), load(rows[7], 0),
            load(rows[8], 0), load(rows[9], 0), load(rows[10], 0), load(rows[11], 0),
            load(rows[12], 0), load(rows[13], 0), load(rows[14], 0), load(rows[15], 0),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sums_of_many_vectors_are_those_of_each(kind):
    rows = np.random.default_rng(0).standard_normal((16, STEPS[kind])).astype(kind)
    out = np.zeros(20, kind)
    _totals(rows, STEPS[kind], out)
    np.testing.assert_allclose(out[2:18], rows.sum(1), rtol=1e-5)
    assert not out[[0, 1, 18, 19]].any()
