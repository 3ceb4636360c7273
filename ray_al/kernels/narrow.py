"""Products of rows with few columns: a head's few classes. The rows are read where they are, float16 ones, too.

A routine for all shapes would widen float16 rows to memory first, and fill the columns up, three times the work.
"""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.vectors import READS_HALVES, SINGLES, fma, lined_up, load, load_singles, spread, store, total

MOST = 16  # columns; for more, wide products are as fast


def is_narrow(x: np.ndarray, columns: int) -> bool:
    """Whether `products` is for rows x (n, w) and so many columns."""
    kinds = (np.float32, np.float16) if READS_HALVES else (np.float32,)
    return columns <= MOST and x.shape[1] % SINGLES == 0 and x.dtype in kinds


def products(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(C, n) float32 products of columns (C, w) float32 with rows x (n, w), `is_narrow`, in the calling thread.

    A row's products depend on the row and the columns alone: not, in any bit, on where it stands.
    """
    out = np.empty((len(columns), len(x)), np.float32)
    bits = x.view(np.int16) if x.dtype == np.float16 else x
    _products(blocks.borrow(bits).numpy(), columns, out)
    return out


@compiled
def _products(x: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    n, width = x.shape
    classes = columns.shape[0]
    zero = spread(np.float32(0))
    heads = lined_up(columns, classes + classes % 2, width)  # worked in pairs, and rows by four
    rows = lined_up(columns, 4, width)
    for c in range(heads.shape[0]):
        for k in range(0, width, SINGLES):
            store(heads[c], k, load_singles(columns[c], k) if c < classes else zero)
    for i in range(0, n, 4):
        for r in range(4):
            row = x[min(i + r, n - 1)]
            for k in range(0, width, SINGLES):
                store(rows[r], k, load_singles(row, k))
        for c in range(0, heads.shape[0], 2):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
            for k in range(0, width, SINGLES):
                a, b = load(heads[c], k), load(heads[c + 1], k)
                row = load(rows[0], k)
                a0, b0 = fma(row, a, a0), fma(row, b, b0)
                row = load(rows[1], k)
                a1, b1 = fma(row, a, a1), fma(row, b, b1)
                row = load(rows[2], k)
                a2, b2 = fma(row, a, a2), fma(row, b, b2)
                row = load(rows[3], k)
                a3, b3 = fma(row, a, a3), fma(row, b, b3)
            sums = (total(a0), total(a1), total(a2), total(a3)), (total(b0), total(b1), total(b2), total(b3))
            for pair in range(2):
                for r in range(4):
                    if c + pair < classes and i + r < n:
                        out[c + pair, i + r] = sums[pair][r]
