"""Inner loops of typicality, compiled by numba."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled, sums
from ray_al.kernels.halves import wide

STEP = 64  # groups' rows are filled up to multiples of it
_CLOSE = 1e-3  # squared distances below this part of |a|^2 are worked again in float64


@sums
def gather(
    x: np.ndarray, ids: np.ndarray, sizes: np.ndarray, shifts: np.ndarray, out: np.ndarray, norms: np.ndarray
) -> None:
    """out (m, d) = rows `ids` of x, group after group of `sizes` (g,), less their mean, which shifts (g, d) is set to;
    norms (m,) = their squared norms.

    After each group there are zeros up to a multiple of STEP rows. What is not finite in a mean is 0 in the shift. x is
    of `readable`.
    """
    at, place = 0, 0
    for g in range(len(sizes)):
        total, shift = np.zeros(x.shape[1]), shifts[g]
        for i in range(at, at + sizes[g]):
            row = x[ids[i]]
            for k in range(len(total)):
                total[k] += np.float64(wide(row[k]))
        for k in range(len(total)):
            mean = np.float32(total[k] / sizes[g])
            shift[k] = mean if np.isfinite(mean) else np.float32(0.0)
        for i in range(at, at + sizes[g]):
            row, own, square = x[ids[i]], out[place], np.float32(0.0)
            for k in range(len(shift)):
                value = wide(row[k]) - shift[k]
                own[k] = value
                square += value * value
            norms[place] = square
            place += 1
        at += sizes[g]
        while place % STEP:
            out[place] = 0
            norms[place] = 0
            place += 1


@compiled
def to_squares(products: np.ndarray, norms: np.ndarray, width: int, own: int, out: np.ndarray) -> None:
    """out (n, m) = -2 products + norms (width,), of rows and columns: squared distances less the rows' squared norms.

    Infinite from column `width` on, and where a row meets itself: in the first at column `own`, if it is one. `out` may
    be the products' memory.
    """
    for i in range(len(out)):
        row, found = products[i], out[i]
        for j in range(width):
            found[j] = np.float32(-2.0) * row[j] + norms[j]
        found[width:] = np.inf
        if 0 <= own + i < width:
            found[own + i] = np.inf


@compiled
def finish(nearest: np.ndarray, norms: np.ndarray, squares: np.ndarray, close: np.ndarray) -> bool:
    """squares (n, count) float64 = nearest + norms (n,), at least 0. Returns whether all are finite.

    close (n,) is set to whether a row's nearest is so close that the products' rounding shows.
    """
    total = 0.0
    for i in range(len(squares)):
        for k in range(squares.shape[1]):
            square = np.float64(nearest[i, k]) + np.float64(norms[i])
            total += 0.0 * square  # 0 * NaN and 0 * inf are NaN
            squares[i, k] = max(square, 0.0)
        close[i] = squares[i, 0] < _CLOSE * np.float64(norms[i])
    return total == 0
