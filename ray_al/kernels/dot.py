"""Sums of products in an order of their own: the compiler reorders none."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.halves import wide
from ray_al.kernels.vectors import DOUBLES, add, fma, load_doubles, spread, total


@compiled
def dot(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of products of numbers side by side (n,), float64 or of `halves.loadable`, in float64."""
    a = b = spread(0.0)
    whole, rest = len(x) // (2 * DOUBLES) * 2 * DOUBLES, 0.0
    for k in range(0, whole, 2 * DOUBLES):
        a = fma(load_doubles(x, k), load_doubles(y, k), a)
        b = fma(load_doubles(x, k + DOUBLES), load_doubles(y, k + DOUBLES), b)
    for k in range(whole, len(x)):
        rest += np.float64(wide(x[k])) * np.float64(wide(y[k]))
    return total(add(a, b)) + rest
