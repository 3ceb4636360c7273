"""Products of a few rows with a few others, in compiled loops: each number that is read serves several of them."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.vectors import DOUBLES, SHORTS, aligned, fma, load, spread, store_totals

TILE = 4  # rows
_DOUBLE = np.empty(0)


def in_tiles(x: np.ndarray) -> np.ndarray:
    """x (m, w) in float64, with zeros up to whole tiles and pairs of vectors."""
    (m, w), step = x.shape, 2 * DOUBLES
    filled = aligned(_DOUBLE, -(-m // TILE) * TILE, -(-w // step) * step)
    filled[:m, :w], filled[m:], filled[:, w:] = x, 0, 0
    return filled


@compiled
def products_between(rows: np.ndarray, i: int, j: int, out: np.ndarray) -> None:
    """out (TILE * TILE,) = products of TILE rows of (.., w) from i on with those from j on, row after row.

    w is a multiple of a vector's length. A product's bits depend on the two rows alone.
    """
    x0, x1, x2, x3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    y0, y1, y2, y3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(rows.dtype.type(0))
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = a0
    for k in range(0, rows.shape[1], 2 * SHORTS // rows.itemsize):
        u0, u1, u2, u3 = load(y0, k), load(y1, k), load(y2, k), load(y3, k)
        v = load(x0, k)
        a0, a1, a2, a3 = fma(v, u0, a0), fma(v, u1, a1), fma(v, u2, a2), fma(v, u3, a3)
        v = load(x1, k)
        b0, b1, b2, b3 = fma(v, u0, b0), fma(v, u1, b1), fma(v, u2, b2), fma(v, u3, b3)
        v = load(x2, k)
        c0, c1, c2, c3 = fma(v, u0, c0), fma(v, u1, c1), fma(v, u2, c2), fma(v, u3, c3)
        v = load(x3, k)
        d0, d1, d2, d3 = fma(v, u0, d0), fma(v, u1, d1), fma(v, u2, d2), fma(v, u3, d3)
    store_totals(out, 0, (a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3))
