"""What Newton's method for softmax regression is made of: limits, inner loops compiled by numba."""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels.compiled import compiled, exp, halved, widened
from ray_al.kernels.dot import dot
from ray_al.kernels.vectors import SINGLES, copied, fma, lined_up, load, spread, store, total

MAX_STEPS = 300
FEW_STEPS = 60  # of the trust region: twice as many as usual data need
MAX_SEARCH = 50
MAX_INNER = 2000  # steps of these
AT_EDGE, FLAT, DONE = 1, 2, 3  # why they ended


@compiled
def soften(z: np.ndarray, label: np.ndarray, probs: np.ndarray) -> tuple[float, float]:
    """probs (C, n) become the softmax of logits z (C, n). Returns the labels' summed log-loss, and |z|^2."""
    classes, n = z.shape
    top, total = z[0].copy(), np.zeros(n, np.float32)
    nll = square = 0.0
    for c in range(1, classes):
        for j in range(n):
            top[j] = max(top[j], z[c, j])
    for c in range(classes):
        for j in range(n):
            e = exp(z[c, j] - top[j])
            probs[c, j] = e
            total[j] += e
        square += dot(z[c], z[c])
    for j in range(n):
        nll += np.log(np.float64(total[j])) + (np.float64(top[j]) - np.float64(z[label[j], j]))
        total[j] = np.float32(1) / total[j]
    for c in range(classes):
        for j in range(n):
            probs[c, j] *= total[j]
    return nll, square


@compiled
def bend(probs: np.ndarray, s: np.ndarray, kappa: float) -> None:
    """s (C, n) becomes, in place, the likelihood's Hessian in the logits times s, less kappa s."""
    classes, n = s.shape
    mean = np.zeros(n, s.dtype)
    for c in range(classes):
        for j in range(n):
            mean[j] += probs[c, j] * s[c, j]
    for c in range(classes):
        for j in range(n):
            s[c, j] = probs[c, j] * (s[c, j] - mean[j]) - kappa * s[c, j]


@compiled
def bend_halves(probs: np.ndarray, s: np.ndarray, kappa: float) -> None:
    """`bend` where s holds the bits of bfloat16."""
    classes, n = s.shape
    mean = np.zeros(n, np.float32)
    for c in range(classes):
        for j in range(n):
            mean[j] += probs[c, j] * widened(s[c, j])
    for c in range(classes):
        for j in range(n):
            value = widened(s[c, j])
            s[c, j] = halved(probs[c, j] * (value - mean[j]) - kappa * value)


@compiled
def advance(
    d: np.ndarray, r: np.ndarray, p: np.ndarray, product: np.ndarray, square: float, radius: float
) -> tuple[float, int]:
    """One step of conjugate gradients in place: d goes on along p, of which product (r,) is H's without the identity.

    Returns |r|^2 (its value before was `square`), and 0, or why this was the last step: AT_EDGE when d would have
    left the ball of this radius and ends on it, FLAT when the curvature along p is lost in rounding.
    """
    for k in range(len(d)):
        product[k] += p[k]
    curvature, dd, dp, pp = dot(p, product), dot(d, d), dot(d, p), dot(p, p)
    if not curvature > 0:
        return square, FLAT
    step, end = square / curvature, 0
    if not dd + step * (2 * dp + step * pp) < radius * radius:
        room = max(radius * radius - dd, 0.0)
        step, end = room / (dp + math.sqrt(dp * dp + pp * room)), AT_EDGE
    factors = np.empty(2, d.dtype)  # in the vectors' own precision
    factors[0] = step
    for k in range(len(d)):
        d[k] += factors[0] * p[k]
        r[k] -= factors[0] * product[k]
    after = dot(r, r)
    factors[1] = after / square
    for k in range(len(d)):
        p[k] = r[k] + factors[1] * p[k]
    return after, end


@compiled
def next_radius(radius: float, length: float, slope: float, gain: float, promised: float) -> float:
    """The next radius after a step that needed no search, by the ratio of gain and promise and by interpolation."""
    if radius == np.inf:
        radius = length
    bend = -gain - slope
    factor = 4.0 if bend <= 0 else max(0.25, -0.5 * slope / bend)
    if gain < 0.75 * promised:
        return max(0.25 * radius, min(factor * length, 4 * radius))
    return max(radius, min(factor * length, 4 * radius))


@compiled
def descend(
    rows: np.ndarray, probs: np.ndarray, kappa: np.float32, d: np.ndarray, r: np.ndarray, radius: float, eta: float
) -> int:
    """Conjugate gradients on H d = r from d = 0, in place; returns why they ended.

    n of rows (n, w) is a multiple of 4, C of probs (C, n) one of 2, w one of `vectors.SINGLES`; what fills them up is
    zero.
    """
    p, product, s = copied(r), lined_up(r, *r.shape), np.empty((r.shape[0], 4), np.float32)
    square = first = dot(r.ravel(), r.ravel())
    for _ in range(MAX_INNER):
        multiply(rows, probs, kappa, p, product, s)
        square, end = advance(d.ravel(), r.ravel(), p.ravel(), product.ravel(), square, radius)
        if end:
            return end
        if square <= eta * eta * first:
            return DONE
    return FLAT


@compiled
def multiply(
    rows: np.ndarray, probs: np.ndarray, kappa: np.float32, p: np.ndarray, product: np.ndarray, s: np.ndarray
) -> None:
    """product (C, w) = p (C, w) times H without the identity; s (C, 4) is room to work in.

    Four rows and two classes at a time: so many sums fit in registers.
    """
    product[:] = 0
    for i in range(0, len(rows), 4):
        x0, x1, x2, x3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for c in range(0, len(p), 2):
            p0, p1 = p[c], p[c + 1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(np.float32(0))
            for k in range(0, rows.shape[1], SINGLES):
                u, v, y0, y1, y2, y3 = load(p0, k), load(p1, k), load(x0, k), load(x1, k), load(x2, k), load(x3, k)
                a0, a1, a2, a3 = fma(u, y0, a0), fma(u, y1, a1), fma(u, y2, a2), fma(u, y3, a3)
                b0, b1, b2, b3 = fma(v, y0, b0), fma(v, y1, b1), fma(v, y2, b2), fma(v, y3, b3)
            s0, s1 = s[c], s[c + 1]
            s0[0], s0[1], s0[2], s0[3] = total(a0), total(a1), total(a2), total(a3)
            s1[0], s1[1], s1[2], s1[3] = total(b0), total(b1), total(b2), total(b3)
        m0 = m1 = m2 = m3 = np.float32(0)
        for c in range(len(p)):
            own, part = probs[c], s[c]
            m0, m1 = m0 + own[i] * part[0], m1 + own[i + 1] * part[1]
            m2, m3 = m2 + own[i + 2] * part[2], m3 + own[i + 3] * part[3]
        for c in range(len(p)):
            own, part = probs[c], s[c]
            part[0] = own[i] * (part[0] - m0) - kappa * part[0]
            part[1] = own[i + 1] * (part[1] - m1) - kappa * part[1]
            part[2] = own[i + 2] * (part[2] - m2) - kappa * part[2]
            part[3] = own[i + 3] * (part[3] - m3) - kappa * part[3]
        for c in range(0, len(p), 2):
            q0, q1, s0, s1 = product[c], product[c + 1], s[c], s[c + 1]
            a0, a1, a2, a3 = spread(s0[0]), spread(s0[1]), spread(s0[2]), spread(s0[3])
            b0, b1, b2, b3 = spread(s1[0]), spread(s1[1]), spread(s1[2]), spread(s1[3])
            for k in range(0, rows.shape[1], SINGLES):
                y0, y1, y2, y3 = load(x0, k), load(x1, k), load(x2, k), load(x3, k)
                store(q0, k, fma(a3, y3, fma(a2, y2, fma(a1, y1, fma(a0, y0, load(q0, k))))))
                store(q1, k, fma(b3, y3, fma(b2, y2, fma(b1, y1, fma(b0, y0, load(q1, k))))))
