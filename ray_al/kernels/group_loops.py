"""Inner loops of typicality, compiled by numba."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.halves import wide
from ray_al.kernels.tiles import TILE, products_between
from ray_al.kernels.vectors import (
    DOUBLES,
    SINGLES,
    add,
    fma,
    load,
    load_doubles,
    load_singles,
    spread,
    store,
    subtract,
    total,
)

STEP = 64  # parts' rows are filled up to multiples of it: products have few shapes
_NEAR = 8 * TILE  # rows that stay in the first cache while others pass by
_CLOSE = 1e-3  # squared distances below this part of |a|^2 are worked again in float64


@compiled
def gather(
    x: np.ndarray, ids: np.ndarray, sizes: np.ndarray, shifts: np.ndarray, out: np.ndarray, norms: np.ndarray
) -> None:
    """out (m, w) = rows `ids` of x (.., d), group after group of `sizes` (g,), less their mean, which shifts (g, d) is
    set to, and zeros; norms (m,) = their squared norms.

    After each group there are zeros up to a multiple of TILE rows. What is not finite in a mean is 0 in the shift. x is
    of `halves.loadable`.
    """
    at, place, whole = 0, 0, x.shape[1] // SINGLES * SINGLES
    for g in range(len(sizes)):
        total_of, shift = np.zeros(x.shape[1]), shifts[g]
        for i in range(at, at + sizes[g]):
            row = x[ids[i]]
            for k in range(0, whole, DOUBLES):
                store(total_of, k, add(load(total_of, k), load_doubles(row, k)))
            for k in range(whole, len(row)):
                total_of[k] += np.float64(wide(row[k]))
        for k in range(len(total_of)):
            mean = np.float32(total_of[k] / sizes[g])
            shift[k] = mean if np.isfinite(mean) else np.float32(0.0)
        for i in range(at, at + sizes[g]):
            row, own, squares, rest = x[ids[i]], out[place], spread(np.float32(0.0)), np.float32(0.0)
            for k in range(0, whole, SINGLES):
                value = subtract(load_singles(row, k), load(shift, k))
                store(own, k, value)
                squares = fma(value, value, squares)
            for k in range(whole, len(row)):
                own[k] = wide(row[k]) - shift[k]
                rest += own[k] * own[k]
            own[len(row) :] = 0
            norms[place] = total(squares) + rest
            place += 1
        at += sizes[g]
        while place % TILE:
            out[place] = 0
            norms[place] = 0
            place += 1


@compiled
def squares_within(rows: np.ndarray, norms: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    """out (n, m) = `to_squares` of each row and those of its group, group after group of `sizes` (g,), of up to m rows.

    rows (.., w) and their squared norms (..,) are of `gather`. A pair is worked once, 4 rows with 4 others at a time.
    """
    products, first, at = np.empty((TILE, TILE), np.float32), 0, 0
    flat = products.ravel()
    for size in sizes:
        for start in range(0, size, _NEAR):
            for i in range(start, size, TILE):
                for j in range(start, min(start + _NEAR, i + 1), TILE):
                    products_between(rows, first + i, first + j, flat)
                    for r in range(min(TILE, size - i)):
                        for c in range(min(TILE, size - j)):
                            twice = np.float32(-2.0) * products[r, c]
                            out[at + i + r, j + c] = twice + norms[first + j + c]
                            out[at + j + c, i + r] = twice + norms[first + i + r]
        for i in range(size):
            out[at + i, i] = np.inf
            out[at + i, size:] = np.inf
        first += -(-size // TILE) * TILE
        at += size


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
