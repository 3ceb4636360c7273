"""Trust-region Newton for small softmax problems in one call of machine code: other threads have the interpreter.

The method is that of `ray_al.kernels.newton.minimize`, with gradients and values in float64 throughout.
"""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels.compiled import sums
from ray_al.kernels.conjugate import FEW_STEPS, FLAT, MAX_SEARCH, MAX_STEPS, descend, next_radius

_LEVEL = 1e-12  # relative: values closer than this differ by rounding
_ETA = 0.01  # least relative error that steps ask for


def minimize_small(
    rows: np.ndarray, label: np.ndarray, classes: int, kappa: float, tol: float, few: int = FEW_STEPS
) -> tuple[np.ndarray | None, int, int]:
    """U (C, r) of `SoftmaxProblem(rows (n, r), label (n,), classes, kappa)` with |gradient| <= tol |gradient at 0|.

    After `few` steps the trust region is given up for whole steps and searches along them.

    Returns:
        U, or None where that needs products with more digits than float32 has, as `minimize` makes them; steps, and
        how many of them were searched along.
    """
    n, width = rows.shape
    # Zeros fill whole vectors up; classes are worked in pairs and rows by four.
    wide = np.zeros((_up(n, 4), _up(width, 16)))
    wide[:n, :width] = rows
    u = np.zeros((_up(classes, 2), wide.shape[1]))
    steps, searches, norm, first = _minimize(wide, wide.astype(np.float32), label, classes, kappa, tol, few, u)
    return u[:classes, :width] if norm <= tol * first else None, steps, searches


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


@sums
def _minimize(
    rows: np.ndarray, near: np.ndarray, label: np.ndarray, classes: int, kappa: float, tol: float, few: int,
    u: np.ndarray,
) -> tuple[int, int, float, float]:  # fmt: skip
    """Minimize over u (C, w), which is zero, in place; rows (n, w) float64 and once more, `near`, in float32.

    Returns steps, searches, and the gradient's norms at the end and at zero.
    """
    z, probs, gradient = np.zeros((len(u), len(rows))), np.zeros((len(u), len(rows))), np.empty_like(u)
    value = soften(z, label, classes, kappa, probs) + _square(u) / 2
    differentiate(rows, z, probs, label, classes, kappa, u, gradient)
    first = norm = math.sqrt(_square(gradient))
    radius, searches, trial_probs = np.inf, 0, np.zeros_like(probs)
    for number in range(MAX_STEPS):
        hard = number >= few
        if hard:
            radius = np.inf
        if norm <= tol * first:
            return number, searches, norm, first
        eta = max(_ETA, min(0.3, math.sqrt(norm / first)), 0.7 * tol * first / norm)
        # In units of the gradient's norm nothing overflows or vanishes in float32.
        d, residual, end = _step(near, probs, kappa, gradient, norm, radius, eta)
        slope = _dot(gradient, d)
        if end == FLAT or not slope < 0:  # float32 has too few digits
            return number, searches, norm, first
        ahead = logits(rows, d)
        trial, trial_z = _along(u, 1.0, d), _along(z, 1.0, ahead)
        trial_value = soften(trial_z, label, classes, kappa, trial_probs) + _square(trial) / 2
        promised = 0.5 * (norm * _dot(d, residual) - slope)
        gain, length = value - trial_value, math.sqrt(_square(d))
        level = _LEVEL * abs(value)
        if hard or (gain < 0.25 * promised and abs(gain) > level):
            # Far too long, as the first step of many classes is: a point along it costs no product.
            searches += 1
            part = _search(u, z, d, ahead, label, classes, kappa, slope)
            trial, trial_z = _along(u, part, d), _along(z, part, ahead)
            trial_value = soften(trial_z, label, classes, kappa, trial_probs) + _square(trial) / 2
            gain, radius = value - trial_value, part * length
        else:
            radius = next_radius(radius, length, slope, gain, promised)
        if hard or gain > 0 or abs(gain) <= level:
            _copy(trial, u)
            z, value = trial_z, trial_value
            probs, trial_probs = trial_probs, probs
            differentiate(rows, z, probs, label, classes, kappa, u, gradient)
            norm = math.sqrt(_square(gradient))
        else:  # rounding hides where along the step it falls
            radius /= 4
    return MAX_STEPS, searches, norm, first


@sums
def _step(
    rows: np.ndarray, probs: np.ndarray, kappa: float, gradient: np.ndarray, norm: float, radius: float, eta: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Conjugate gradients in float32: d, (-gradient - H d) / norm, and why they ended."""
    weights = np.empty((len(rows), len(gradient)), np.float32)
    for c in range(len(probs)):
        for i in range(len(rows)):
            weights[i, c] = np.float32(probs[c, i])
    d, r = np.zeros(gradient.shape, np.float32), np.zeros(gradient.shape, np.float32)
    for c in range(len(gradient)):
        for k in range(gradient.shape[1]):
            r[c, k] = np.float32(-gradient[c, k] / norm)
    end = descend(rows, weights, np.float32(kappa), d, r, radius / norm, eta)
    zero = np.zeros(gradient.shape)
    return _along(zero, norm, d), _along(zero, 1.0, r), end


@sums
def logits(rows: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(C, n) products of u (C, w) with rows (n, w), two classes and four rows at a time."""
    z = np.empty((len(u), len(rows)))
    for i in range(0, len(rows), 4):
        x0, x1, x2, x3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for c in range(0, len(u), 2):
            u0, u1 = u[c], u[c + 1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
            for k in range(rows.shape[1]):
                v, w = u0[k], u1[k]
                a0 += v * x0[k]
                a1 += v * x1[k]
                a2 += v * x2[k]
                a3 += v * x3[k]
                b0 += w * x0[k]
                b1 += w * x1[k]
                b2 += w * x2[k]
                b3 += w * x3[k]
            z[c, i], z[c, i + 1], z[c, i + 2], z[c, i + 3] = a0, a1, a2, a3
            z[c + 1, i], z[c + 1, i + 1], z[c + 1, i + 2], z[c + 1, i + 3] = b0, b1, b2, b3
    return z


@sums
def soften(z: np.ndarray, label: np.ndarray, classes: int, kappa: float, probs: np.ndarray) -> float:
    """probs (C, n) become the softmax of z (C, n), of the rows that have a label; returns their summed log-loss, less
    kappa/2 of z's squares."""
    n, nll, square = len(label), 0.0, 0.0
    top, total = z[0, :n].copy(), np.zeros(n)
    for c in range(1, classes):
        for j in range(n):
            top[j] = max(top[j], z[c, j])
    for c in range(classes):
        for j in range(n):
            probs[c, j] = math.exp(z[c, j] - top[j])
        for j in range(n):
            total[j] += probs[c, j]
            square += z[c, j] * z[c, j]
    for j in range(n):
        nll += math.log(total[j]) + (top[j] - z[label[j], j])
        total[j] = 1 / total[j]
    for c in range(classes):
        for j in range(n):
            probs[c, j] *= total[j]
    return nll - kappa * square / 2


@sums
def differentiate(
    rows: np.ndarray, z: np.ndarray, probs: np.ndarray, label: np.ndarray, classes: int, kappa: float, u: np.ndarray,
    gradient: np.ndarray,
) -> None:  # fmt: skip
    """gradient (C, w) = u + (probs - onehot - kappa z) rows, in place."""
    off = np.zeros_like(z)
    for c in range(classes):
        for j in range(len(label)):
            off[c, j] = probs[c, j] - kappa * z[c, j]
    for j in range(len(label)):
        off[label[j], j] -= 1
    _copy(u, gradient)
    for i in range(0, len(rows), 4):
        x0, x1, x2, x3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for c in range(0, len(u), 2):
            g0, g1 = gradient[c], gradient[c + 1]
            a0, a1, a2, a3 = off[c, i], off[c, i + 1], off[c, i + 2], off[c, i + 3]
            b0, b1, b2, b3 = off[c + 1, i], off[c + 1, i + 1], off[c + 1, i + 2], off[c + 1, i + 3]
            for k in range(rows.shape[1]):
                g0[k] += a0 * x0[k] + a1 * x1[k] + a2 * x2[k] + a3 * x3[k]
                g1[k] += b0 * x0[k] + b1 * x1[k] + b2 * x2[k] + b3 * x3[k]


@sums
def _search(
    u: np.ndarray, z: np.ndarray, d: np.ndarray, ahead: np.ndarray, label: np.ndarray, classes: int, kappa: float,
    slope: float,
) -> float:  # fmt: skip
    """`ray_al.kernels.newton.SoftmaxProblem.search`."""
    n, target = len(label), 0.0
    for j in range(n):
        target += ahead[label[j], j]
    linear = _dot(u, d) - kappa * _dot(z, ahead) - target
    square = _square(d) - kappa * _square(ahead)
    low, high, t = 0.0, np.inf, 1.0
    probs = np.empty_like(z)
    for _ in range(MAX_SEARCH):
        soften(_along(z, t, ahead), label, classes, 0.0, probs)
        here, bend = linear + t * square, square
        for j in range(n):
            mean = spread = 0.0
            for c in range(classes):
                mean += probs[c, j] * ahead[c, j]
            for c in range(classes):
                spread += probs[c, j] * (ahead[c, j] - mean) * (ahead[c, j] - mean)
            here += mean
            bend += spread
        if 0.5 * slope <= here <= 0:
            return t
        if here > 0:
            high = t
        else:
            low = t
        newton = t - here / bend if bend > 0 else np.inf
        t = newton if low < newton < min(high, 10 * t) else min(10 * t, (low + high) / 2)
    return low if low > 0 else 1.0


@sums
def _along(x: np.ndarray, t: float, d: np.ndarray) -> np.ndarray:
    """x + t d, as loops: array expressions take seconds to compile."""
    out = np.empty(x.shape)
    for c in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[c, k] = x[c, k] + t * d[c, k]
    return out


@sums
def _copy(x: np.ndarray, out: np.ndarray) -> None:
    for c in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[c, k] = x[c, k]


@sums
def _square(x: np.ndarray) -> float:
    total = 0.0
    for value in x.ravel():
        total += value * value
    return total


@sums
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    total, flat = 0.0, y.ravel()
    for k, value in enumerate(x.ravel()):
        total += value * flat[k]
    return total
