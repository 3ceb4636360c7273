"""Trust-region Newton for small softmax problems in one call of machine code: other threads have the interpreter.

The method is that of `ray_al.kernels.newton.minimize`, with gradients and values in float64 throughout.
"""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.conjugate import FEW_STEPS, FLAT, MAX_SEARCH, MAX_STEPS, descend, next_radius
from ray_al.kernels.dot import dot
from ray_al.kernels.vectors import DOUBLES, SINGLES, aligned, copied, fma, lined_up, load, spread, store, total

_LEVEL = 1e-12  # relative: values closer than this differ by rounding
_ETA = 0.01  # least relative error that steps ask for
_SINGLE = np.empty(0, np.float32)


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
    shape = _up(n, 4), _up(width, SINGLES)
    wide, near = aligned(rows, *shape), aligned(_SINGLE, *shape)
    wide[n:], wide[:, width:] = 0, 0
    wide[:n, :width] = rows
    near[:] = wide
    u = aligned(rows, _up(classes, 2), shape[1])
    u[:] = 0
    steps, searches, norm, first = minimize_over(wide, near, label, classes, kappa, tol, few, u)
    return u[:classes, :width] if norm <= tol * first else None, steps, searches


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


@compiled
def minimize_over(
    rows: np.ndarray, near: np.ndarray, label: np.ndarray, classes: int, kappa: float, tol: float, few: int,
    u: np.ndarray,
) -> tuple[int, int, float, float]:  # fmt: skip
    """Minimize over u (C, w), which is zero, in place; rows (n, w) float64 and once more, `near`, in float32.

    Returns steps, searches, and the gradient's norms at the end and at zero.
    """
    z, probs, gradient = np.zeros((len(u), len(rows))), np.zeros((len(u), len(rows))), copied(u)
    value = soften(z, label, classes, kappa, probs) + _dot(u, u) / 2
    differentiate(rows, z, probs, label, classes, kappa, u, gradient)
    first = norm = math.sqrt(_dot(gradient, gradient))
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
        trial_value = soften(trial_z, label, classes, kappa, trial_probs) + _dot(trial, trial) / 2
        promised = 0.5 * (norm * _dot(d, residual) - slope)
        gain, length = value - trial_value, math.sqrt(_dot(d, d))
        level = _LEVEL * abs(value)
        if hard or (gain < 0.25 * promised and abs(gain) > level):
            # Far too long, as the first step of many classes is: a point along it costs no product.
            searches += 1
            part = _search(u, z, d, ahead, label, classes, kappa, slope)
            trial, trial_z = _along(u, part, d), _along(z, part, ahead)
            trial_value = soften(trial_z, label, classes, kappa, trial_probs) + _dot(trial, trial) / 2
            gain, radius = value - trial_value, part * length
        else:
            radius = next_radius(radius, length, slope, gain, promised)
        if hard or gain > 0 or abs(gain) <= level:
            _copy(trial, u)
            z, value = trial_z, trial_value
            probs, trial_probs = trial_probs, probs
            differentiate(rows, z, probs, label, classes, kappa, u, gradient)
            norm = math.sqrt(_dot(gradient, gradient))
        else:  # rounding hides where along the step it falls
            radius /= 4
    return MAX_STEPS, searches, norm, first


@compiled
def _step(
    rows: np.ndarray, probs: np.ndarray, kappa: float, gradient: np.ndarray, norm: float, radius: float, eta: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Conjugate gradients in float32: d, (-gradient - H d) / norm, and why they ended."""
    weights = np.empty(probs.shape, np.float32)
    for c in range(len(probs)):
        for i in range(len(rows)):
            weights[c, i] = np.float32(probs[c, i])
    d, r = lined_up(rows, *gradient.shape), lined_up(rows, *gradient.shape)
    for c in range(len(gradient)):
        for k in range(gradient.shape[1]):
            d[c, k], r[c, k] = np.float32(0), np.float32(-gradient[c, k] / norm)
    end = descend(rows, weights, np.float32(kappa), d, r, radius / norm, eta)
    zero = np.zeros(gradient.shape)
    return _along(zero, norm, d), _along(zero, 1.0, r), end


@compiled
def logits(rows: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(C, n) products of u (C, w) with rows (n, w), two classes and four rows at a time."""
    z = np.empty((len(u), len(rows)))
    for i in range(0, len(rows), 4):
        x0, x1, x2, x3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for c in range(0, len(u), 2):
            u0, u1 = u[c], u[c + 1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(0.0)
            for k in range(0, rows.shape[1], DOUBLES):
                v, w, y0, y1, y2, y3 = load(u0, k), load(u1, k), load(x0, k), load(x1, k), load(x2, k), load(x3, k)
                a0, a1, a2, a3 = fma(v, y0, a0), fma(v, y1, a1), fma(v, y2, a2), fma(v, y3, a3)
                b0, b1, b2, b3 = fma(w, y0, b0), fma(w, y1, b1), fma(w, y2, b2), fma(w, y3, b3)
            z0, z1 = z[c], z[c + 1]
            z0[i], z0[i + 1], z0[i + 2], z0[i + 3] = total(a0), total(a1), total(a2), total(a3)
            z1[i], z1[i + 1], z1[i + 2], z1[i + 3] = total(b0), total(b1), total(b2), total(b3)
    return z


@compiled
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
        square += dot(z[c, :n], z[c, :n])
    for j in range(n):
        nll += math.log(total[j]) + (top[j] - z[label[j], j])
        total[j] = 1 / total[j]
    for c in range(classes):
        for j in range(n):
            probs[c, j] *= total[j]
    return nll - kappa * square / 2


@compiled
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
            o0, o1 = off[c], off[c + 1]
            a0, a1, a2, a3 = spread(o0[i]), spread(o0[i + 1]), spread(o0[i + 2]), spread(o0[i + 3])
            b0, b1, b2, b3 = spread(o1[i]), spread(o1[i + 1]), spread(o1[i + 2]), spread(o1[i + 3])
            for k in range(0, rows.shape[1], DOUBLES):
                y0, y1, y2, y3 = load(x0, k), load(x1, k), load(x2, k), load(x3, k)
                store(g0, k, fma(a3, y3, fma(a2, y2, fma(a1, y1, fma(a0, y0, load(g0, k))))))
                store(g1, k, fma(b3, y3, fma(b2, y2, fma(b1, y1, fma(b0, y0, load(g1, k))))))


@compiled
def _search(
    u: np.ndarray, z: np.ndarray, d: np.ndarray, ahead: np.ndarray, label: np.ndarray, classes: int, kappa: float,
    slope: float,
) -> float:  # fmt: skip
    """`ray_al.kernels.newton.SoftmaxProblem.search`."""
    n, target = len(label), 0.0
    for j in range(n):
        target += ahead[label[j], j]
    linear = _dot(u, d) - kappa * _dot(z, ahead) - target
    square = _dot(d, d) - kappa * _dot(ahead, ahead)
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


@compiled
def _along(x: np.ndarray, t: float, d: np.ndarray) -> np.ndarray:
    """x + t d, as loops: array expressions take seconds to compile."""
    out = copied(x)
    for c in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[c, k] += t * d[c, k]
    return out


@compiled
def _copy(x: np.ndarray, out: np.ndarray) -> None:
    for c in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[c, k] = x[c, k]


@compiled
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    return dot(x.ravel(), y.ravel())
