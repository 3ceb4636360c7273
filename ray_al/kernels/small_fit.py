"""A multinomial regression on few rows, columns and classes, from the rows to the head, in one call of machine code.

A dozen calls of a library would take the interpreter's lock, and bring their code from memory, again and again.
"""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.conjugate import FEW_STEPS
from ray_al.kernels.halves import loadable, wide
from ray_al.kernels.logistic import ABSENT_BIAS, CERTAINTY, FEW, LOST, NEGLIGIBLE, SMALL
from ray_al.kernels.small_newton import minimize_over
from ray_al.kernels.triangular import ROWS, factor, solve_back, solve_rows, square
from ray_al.kernels.vectors import (
    DOUBLES,
    SINGLES,
    add,
    fma,
    lined_up,
    load,
    load_doubles,
    spread,
    store,
    subtract,
    total,
)

_MOST = 320  # columns that are factored although there are fewer rows, whose products would have a smaller factor
_DOUBLE, _SINGLE = np.empty(0), np.empty(0, np.float32)


def fit_small(
    x: np.ndarray, y: np.ndarray, classes: int, l2: float, tol: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights (classes, d) and bias (classes,), float32, of `logistic.fit_logistic`'s problem x (n, d), y (n,).

    None where x is not `halves.loadable` or finite, where the problem is large, has many more columns than rows, or
    scales so different that the columns' squares lose digits, and where float32 products do not end it.
    """
    rows = loadable(x)
    if rows is None or (3 * x.shape[0] < 2 * x.shape[1] and x.shape[1] > _MOST):
        return None
    weights, bias = np.zeros((classes, x.shape[1]), np.float32), np.full(classes, ABSENT_BIAS, np.float32)
    return (weights, bias) if _fit(rows, y.astype(np.int64), l2, tol, weights, bias) else None


@compiled
def _fit(x: np.ndarray, y: np.ndarray, l2: float, tol: float, weights: np.ndarray, bias: np.ndarray) -> bool:
    """Set weights and bias of the classes that y has; False as `fit_small` says."""
    n, d = x.shape
    sizes, place = np.zeros(len(bias), np.int64), np.zeros(len(bias), np.int64)
    for i in range(n):
        sizes[y[i]] += 1
    present = np.flatnonzero(sizes)
    for c in range(len(present)):
        place[present[c]] = c
    count, columns = len(present), d + 1
    if count * columns > FEW or count * n * columns > SMALL:
        return False
    rows = lined_up(_DOUBLE, _up(n, ROWS), _up(columns, SINGLES))
    mean = np.zeros(rows.shape[1])
    squares = _center(x, mean, rows)
    # See `logistic.fit_logistic` for what kappa is, and what rounding costs squares.
    kappa = CERTAINTY / count
    if not kappa * LOST * n * squares <= NEGLIGIBLE * l2:  # or not finite
        return False
    if count == 1:
        bias[present[0]] = 0
        return True
    side = _up(d, SINGLES)
    m = lined_up(_DOUBLE, side, side + SINGLES)  # columns far apart would share lines of the cache
    inverses = np.empty((side // SINGLES, SINGLES, SINGLES))
    square(rows, kappa, l2, m)
    if not factor(m, inverses):
        return False
    solve_rows(rows, m, inverses)
    unit = (kappa * n) ** -0.5
    for i in range(n):
        rows[i, d] = unit
    near, u = lined_up(_SINGLE, len(rows), rows.shape[1]), lined_up(_DOUBLE, _up(count, 2), rows.shape[1])
    label = np.empty(n, np.int64)
    for i in range(len(rows)):
        for k in range(rows.shape[1]):
            near[i, k] = rows[i, k]
    for i in range(n):
        label[i] = place[y[i]]
    for c in range(len(u)):
        for k in range(u.shape[1]):
            u[c, k] = 0
    _, _, norm, first = minimize_over(rows, near, label, count, kappa, tol, FEW_STEPS, u)
    if not norm <= tol * first:
        return False
    shares = u[:, d].copy()  # of the bias
    for c in range(len(u)):
        u[c, d] = 0
    solve_back(u, m)
    for c in range(count):
        value = shares[c] * unit
        for k in range(d):
            weights[present[c], k] = u[c, k]
            value -= u[c, k] * mean[k]
        bias[present[c]] = value
    return True


@compiled
def _center(x: np.ndarray, mean: np.ndarray, out: np.ndarray) -> float:
    """out (m, w) = rows of x (n, d), of `halves.loadable`, less their mean, and zeros; mean (w,), zero, is set to it.
    Returns the sum of squares."""
    n, d = x.shape
    whole = d // DOUBLES * DOUBLES
    for i in range(n):
        for k in range(0, whole, DOUBLES):
            store(mean, k, add(load_doubles(x[i], k), load(mean, k)))
        for k in range(whole, d):
            mean[k] += wide(x[i, k])
    for k in range(d):
        mean[k] /= n
    squares, rest = spread(0.0), 0.0
    for i in range(len(out)):
        row = out[i]
        for k in range(len(row)):
            row[k] = 0
        if i < n:
            for k in range(0, whole, DOUBLES):
                value = subtract(load_doubles(x[i], k), load(mean, k))
                squares = fma(value, value, squares)
                store(row, k, value)
            for k in range(whole, d):
                row[k] = wide(x[i, k]) - mean[k]
                rest += row[k] * row[k]
    return total(squares) + rest


@compiled
def _up(count: int, step: int) -> int:
    return -(-count // step) * step
