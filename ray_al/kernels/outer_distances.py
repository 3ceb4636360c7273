"""Inner loops of distances between outer products, compiled by numba: `kernels.distances` says how."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled, sums
from ray_al.kernels.distances import below

_TOUCHING = 1e-9  # below it, float64 products are noise in turn


@compiled
def subtract_largest(probs: np.ndarray) -> None:
    """Take 1 from the first largest of each row's probabilities (n, C), in place."""
    for i in range(len(probs)):
        row, place, largest = probs[i], 0, probs[i, 0]
        for c in range(1, len(row)):
            place = c if row[c] > largest else place
            largest = max(row[c], largest)
        row[place] -= np.float32(1.0)


@compiled
def bounds(
    table: np.ndarray,
    similar: np.ndarray,
    rows: np.ndarray,
    points: np.ndarray,
    error: np.float32,
    rounding: np.float32,
    least: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """`distances.bounds` between outer products q h.

    Args:
        table: (p, n) products of shifted h; similar (p, n) those of q.
        rows: (4, n) float32: squared norms of q h less rounding; half of what shifting takes from the squared norm of
            h; the error of that; lengths of shifted h. points (4, p) likewise.
    """
    count, n = table.shape
    least[:] = np.inf
    nearest[:] = 0
    norms, taken, noise, lengths = rows
    for p in range(count):
        row, alike = table[p], similar[p]
        own, own_taken, own_noise, slack = points[0, p], points[1, p], points[2, p], error * points[3, p]
        for j in range(n):
            product = row[j] + taken[j] + own_taken
            unsure = slack * lengths[j] + rounding * abs(row[j]) + noise[j] + own_noise
            row[j] = (norms[j] + own) - np.float32(2.0) * (alike[j] * product + abs(alike[j]) * unsure)
            nearest[j] = p if row[j] < least[j] else nearest[j]
            least[j] = min(row[j], least[j])


@sums
def square(q: np.ndarray, h: np.ndarray, other_q: np.ndarray, other_h: np.ndarray) -> float:
    """|q h - q' h'|^2 of outer products, in float64, 0 for equal rows.

    With q' = c q + r, r orthogonal to q: it is |q|^2 |h - c h'|^2 + |r|^2 |h'|^2, where nothing cancels.
    """
    qq, both = 0.0, 0.0
    for k in range(len(q)):
        qq += np.float64(q[k]) * np.float64(q[k])
        both += np.float64(q[k]) * np.float64(other_q[k])
    c = both / qq if qq > 0.0 else 0.0
    rr, ss, hh = 0.0, 0.0, 0.0
    for k in range(len(q)):
        r = np.float64(other_q[k]) - c * np.float64(q[k])
        rr += r * r
    for k in range(len(h)):
        other = np.float64(other_h[k])
        s = np.float64(h[k]) - c * other
        ss += s * s
        hh += other * other
    return qq * ss + rr * hh


@sums
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(y[k])
    return total


@compiled
def squares(q: np.ndarray, h: np.ndarray, start: int, step: int, out: np.ndarray) -> None:
    """`distances.squares` between outer products of q (m, C) and h (m, d)."""
    norms = np.empty(len(q))
    for i in range(len(q)):
        norms[i] = _dot(q[i], q[i]) * _dot(h[i], h[i])
    for i in range(start, len(q), step):
        for j in range(i):
            value = norms[i] + norms[j] - 2 * (_dot(q[i], q[j]) * _dot(h[i], h[j]))
            if value < _TOUCHING * norms[i]:
                value = square(q[i], h[i], q[j], h[j])
            out[i, j] = out[j, i] = value


@compiled
def lower(
    table: np.ndarray,
    nearest: np.ndarray,
    asked: np.ndarray,
    q: np.ndarray,
    h: np.ndarray,
    where: np.ndarray,
    point_q: np.ndarray,
    point_h: np.ndarray,
    best: np.ndarray,
) -> None:
    """`distances.lower` between outer products: q (n, C) of the block's rows, h (.., d) as there."""
    place = np.full(table.shape[1], -1, np.int32)
    bars = np.full(table.shape[1], -np.inf, np.float32)
    left, flags = np.empty(table.shape[1], np.int32), np.zeros(-(-table.shape[1] // 8) * 8, np.uint8)
    for i in range(len(asked)):
        j, p = asked[i], nearest[asked[i]]
        place[j] = where[i]
        best[j] = min(best[j], square(q[j], h[place[j]], point_q[p], point_h[p]))
        bars[j] = best[j]
    for p in range(table.shape[0]):
        for i in range(below(table[p], bars, flags, left)):
            j = left[i]
            if nearest[j] != p:
                best[j] = min(best[j], square(q[j], h[place[j]], point_q[p], point_h[p]))
                bars[j] = best[j]
