"""Probabilities of few classes: the rows are read where they are, float16 ones, too.

Products for all shapes would widen float16 rows to memory first, and fill the classes up, three times the work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ray_al.kernels.compiled import compiled, softmax
from ray_al.kernels.halves import loadable
from ray_al.kernels.vectors import SINGLES, fma, lined_up, load, load_singles, spread, store, total

MOST = 16  # classes; for more, wide products are as fast


def reader(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> Callable[[int, int, np.ndarray], None] | None:
    """probs(start, stop, out): out (stop - start, C) float32 = softmax of rows [start, stop) of x (n, d) times weights
    (C, d), plus bias (C,), both float32; in the calling thread. None where this is no faster, for a committee, and for
    rows that are not `halves.loadable`.

    A row's probabilities depend on the row and the head alone: not, in any bit, on where it stands.
    """
    rows = loadable(x)
    if rows is None or bias.ndim > 1 or len(bias) > MOST or x.shape[1] % SINGLES:
        return None
    return lambda start, stop, out: _probs(rows, start, stop, weights, bias, out)


@compiled
def _probs(x: np.ndarray, start: int, stop: int, weights: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    width, classes = x.shape[1], len(bias)
    logits = np.empty((classes, stop - start), np.float32)
    zero = spread(np.float32(0))
    heads = lined_up(weights, classes + classes % 2, width)  # worked in pairs, and rows by four
    rows = lined_up(weights, 4, width)
    for c in range(heads.shape[0]):
        for k in range(0, width, SINGLES):
            store(heads[c], k, load_singles(weights[c], k) if c < classes else zero)
    for i in range(start, stop, 4):
        for r in range(4):
            row = x[min(i + r, stop - 1)]
            for k in range(0, width, SINGLES):
                store(rows[r], k, load_singles(row, k))
        for c in range(0, heads.shape[0], 2):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
            for k in range(0, width, SINGLES):
                a, b = load(heads[c], k), load(heads[c + 1], k)
                x0, x1, x2, x3 = load(rows[0], k), load(rows[1], k), load(rows[2], k), load(rows[3], k)
                a0, a1, a2, a3 = fma(x0, a, a0), fma(x1, a, a1), fma(x2, a, a2), fma(x3, a, a3)
                b0, b1, b2, b3 = fma(x0, b, b0), fma(x1, b, b1), fma(x2, b, b2), fma(x3, b, b3)
            sums = (total(a0), total(a1), total(a2), total(a3)), (total(b0), total(b1), total(b2), total(b3))
            for pair in range(2):
                for r in range(4):
                    if c + pair < classes and i + r < stop:
                        logits[c + pair, i + r - start] = sums[pair][r]
    softmax(logits, bias, out)
