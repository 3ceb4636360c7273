"""16-bit rows as compiled loops read them."""

import numba
import numpy as np
import pytest

from ray_al.kernels.halves import loadable, wide


@numba.njit
def _widened(row: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(row)):
        out[i] = wide(row[i])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_number_is_read_as_numpy_reads_it(dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(dtype)[None]
    x.flags.writeable = False
    rows, out = loadable(x), np.empty(x.size, np.float32)
    assert np.shares_memory(rows, x)
    _widened(rows[0], out)
    expected = x[0].astype(np.float32)
    np.testing.assert_array_equal(out, expected)  # NaN where there is NaN
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_what_loops_cannot_read():
    for x in (
        np.zeros((4, 3), np.uint8),
        np.zeros((4, 3)),
        np.zeros((4, 3), np.float16, order="F"),
        np.zeros((4, 6))[:, ::2],
    ):
        assert loadable(x) is None
