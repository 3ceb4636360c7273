"""X'X, its Cholesky factor and rows solved by it, in float64, in compiled loops: a small fit is one call of these.

Matrices are lined up, widths multiples of `vectors.SINGLES`, numbers of rows multiples of ROWS; zeros fill them up. A
factor L lies in the lower triangle and L' in the upper one, so that both are read a vector at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.vectors import DOUBLES, SINGLES, fma, load, spread, store

ROWS = 8  # that are worked together, two vectors wide: so many sums fit in registers
_TOGETHER = 64  # rows, a multiple of ROWS, gone over together: they stay in the second cache
_TALL = 128  # rows, likewise, of a matrix whose X'X is made


@compiled
def square(x: np.ndarray, factor: float, ridge: float, out: np.ndarray) -> None:
    """out (w, w) = factor X'X + ridge I, its lower triangle, of x (n, w)."""
    out[:] = 0
    for start in range(0, len(x), _TALL):
        stop = min(start + _TALL, len(x))
        for j in range(0, len(out), SINGLES):
            for i in range(j, len(out), ROWS):
                add_products(factor, x.T, x, start, stop, out, i, j)
    for i in range(len(out)):
        out[i, i] += ridge


@compiled
def factor(m: np.ndarray, inverses: np.ndarray) -> bool:
    """L and L' of m (w, w) = L L', in place, of whose upper triangle nothing is read; False where m is not positive.

    inverses (w / SINGLES, SINGLES, SINGLES) are set to L^-T of the blocks on the diagonal.
    """
    room = np.empty((2, ROWS, SINGLES))
    for block in range(len(inverses)):
        start, inverse = block * SINGLES, inverses[block]
        stop = start + SINGLES
        for i in range(start, len(m), ROWS):
            add_products(-1.0, m, m, 0, start, m, i, start)
        if not _factor_few(m, start, inverse):
            return False
        for i in range(stop, len(m), ROWS):
            _multiply(m, i, start, inverse, room)
        for i in range(start, len(m)):
            for j in range(start, min(i, stop)):
                m[j, i] = m[i, j]
    return True


@compiled
def solve_rows(x: np.ndarray, m: np.ndarray, inverses: np.ndarray) -> None:
    """Rows of x (n, w) become x L^-T, in place, of a factor and `inverses` by `factor`."""
    room = np.empty((2, ROWS, SINGLES))
    for first in range(0, len(x), _TOGETHER):
        last = min(first + _TOGETHER, len(x))
        for block in range(len(inverses)):
            start = block * SINGLES
            for i in range(first, last, ROWS):
                add_products(-1.0, x, m, 0, start, x, i, start)
                _multiply(x, i, start, inverses[block], room)


@compiled
def solve_back(u: np.ndarray, m: np.ndarray) -> None:
    """Rows of u (C, w) become u L^-1, in place."""
    for j in range(len(m) - 1, -1, -1):
        for c in range(len(u)):
            value = u[c, j] / m[j, j]
            u[c, j] = value
            for k in range(j):
                u[c, k] -= value * m[j, k]


@compiled
def _factor_few(m: np.ndarray, start: int, inverse: np.ndarray) -> bool:
    """`factor` of the block on the diagonal that begins at row `start`, and its L^-T."""
    for j in range(SINGLES):
        row = m[start + j]
        for i in range(j, SINGLES):
            other, value = m[start + i], m[start + i, start + j]
            for k in range(start, start + j):
                value -= row[k] * other[k]
            if i > j:
                other[start + j] = value / row[start + j]
            elif value > 0:
                row[start + j] = math.sqrt(value)
            else:
                return False
    inverse[:] = 0
    for j in range(SINGLES):  # column j of L^-1 is row j of L^-T
        for i in range(j, SINGLES):
            value = 1.0 if i == j else 0.0
            for k in range(j, i):
                value -= m[start + i, start + k] * inverse[j, k]
            inverse[j, i] = value / m[start + i, start + i]
    return True


@compiled
def _multiply(x: np.ndarray, i: int, start: int, inverse: np.ndarray, room: np.ndarray) -> None:
    """ROWS rows of x from i on become, in the columns of a block, these times its inverse."""
    values, found = room[0], room[1]
    found[:] = 0
    for r in range(ROWS):
        for k in range(SINGLES):
            values[r, k] = x[i + r, start + k]
    add_products(1.0, values, inverse, 0, SINGLES, found, 0, 0)
    for r in range(ROWS):
        for k in range(SINGLES):
            x[i + r, start + k] = found[r, k]


@compiled
def add_products(
    sign: float, left: np.ndarray, right: np.ndarray, first: int, last: int, out: np.ndarray, i: int, j: int
) -> None:
    """out (.., w) at ROWS rows from i on and SINGLES columns from j on grows by sign times left (.., first to last)
    times right (first to last, ..), of these rows and columns."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = spread(0.0)
    for k in range(first, last):
        row = right[k]
        u, v = load(row, j), load(row, j + DOUBLES)
        y = spread(left[i, k])
        a0, b0 = fma(y, u, a0), fma(y, v, b0)
        y = spread(left[i + 1, k])
        a1, b1 = fma(y, u, a1), fma(y, v, b1)
        y = spread(left[i + 2, k])
        a2, b2 = fma(y, u, a2), fma(y, v, b2)
        y = spread(left[i + 3, k])
        a3, b3 = fma(y, u, a3), fma(y, v, b3)
        y = spread(left[i + 4, k])
        a4, b4 = fma(y, u, a4), fma(y, v, b4)
        y = spread(left[i + 5, k])
        a5, b5 = fma(y, u, a5), fma(y, v, b5)
        y = spread(left[i + 6, k])
        a6, b6 = fma(y, u, a6), fma(y, v, b6)
        y = spread(left[i + 7, k])
        a7, b7 = fma(y, u, a7), fma(y, v, b7)
    s = spread(sign)
    _add(out[i], j, s, a0, b0)
    _add(out[i + 1], j, s, a1, b1)
    _add(out[i + 2], j, s, a2, b2)
    _add(out[i + 3], j, s, a3, b3)
    _add(out[i + 4], j, s, a4, b4)
    _add(out[i + 5], j, s, a5, b5)
    _add(out[i + 6], j, s, a6, b6)
    _add(out[i + 7], j, s, a7, b7)


@numba.njit(inline="always")
def _add(row: np.ndarray, j: int, s: Any, a: Any, b: Any) -> None:
    store(row, j, fma(s, a, load(row, j)))
    store(row, j + DOUBLES, fma(s, b, load(row, j + DOUBLES)))
