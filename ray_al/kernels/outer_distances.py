"""Inner loops of distances between outer products, compiled by numba: `kernels.distances` says how."""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.distances import few_at_most
from ray_al.kernels.dot import dot
from ray_al.kernels.halves import wide
from ray_al.kernels.masks import at_most, lowest
from ray_al.kernels.tiles import TILE, products_between
from ray_al.kernels.vectors import DOUBLES, SINGLES, add, fma, load_doubles, spread, total

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


@compiled
def square(q: np.ndarray, h: np.ndarray, other_q: np.ndarray, other_h: np.ndarray) -> float:
    """|q h - q' h'|^2 of outer products, in float64, 0 for equal rows; h and h' may be of `halves.loadable`.

    With q' = c q + r, r orthogonal to q: it is |q|^2 |h - c h'|^2 + |r|^2 |h'|^2, where nothing cancels.
    """
    qq, both = dot(q, q), dot(q, other_q)
    c = both / qq if qq > 0.0 else 0.0
    rr, ss, hh = 0.0, 0.0, 0.0
    for k in range(len(q)):
        r = np.float64(other_q[k]) - c * np.float64(q[k])
        rr += r * r
    a0 = a1 = b0 = b1 = spread(np.float64(0))  # sums that need not wait for each other
    less, whole = spread(-c), len(h) // (2 * DOUBLES) * 2 * DOUBLES
    for k in range(0, whole, 2 * DOUBLES):
        one, two = load_doubles(other_h, k), load_doubles(other_h, k + DOUBLES)
        gap = fma(less, one, load_doubles(h, k))
        a0, b0 = fma(gap, gap, a0), fma(one, one, b0)
        gap = fma(less, two, load_doubles(h, k + DOUBLES))
        a1, b1 = fma(gap, gap, a1), fma(two, two, b1)
    for k in range(whole, len(h)):
        other = np.float64(wide(other_h[k]))
        s = np.float64(wide(h[k])) - c * other
        ss += s * s
        hh += other * other
    return qq * (total(add(a0, a1)) + ss) + rr * (total(add(b0, b1)) + hh)


@compiled
def squares(q: np.ndarray, h: np.ndarray, start: int, step: int, out: np.ndarray) -> None:
    """out (m, m) = `distances.squares` between outer products of q (m, C) and h (m, d), both `in_tiles`: of every
    `step`-th tile of rows from the start-th one on."""
    count, norms = len(out), np.empty(len(q))
    alike, near = np.empty((TILE, TILE)), np.empty((TILE, TILE))
    for i in range(count):
        norms[i] = dot(q[i], q[i]) * dot(h[i], h[i])
    for first in range(start * TILE, count, step * TILE):
        for second in range(0, first + 1, TILE):
            products_between(q, first, second, alike.ravel())
            products_between(h, first, second, near.ravel())
            for i in range(first, min(first + TILE, count)):
                for j in range(second, min(second + TILE, i)):
                    value = norms[i] + norms[j] - 2 * (alike[i - first, j - second] * near[i - first, j - second])
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
    whole = table.shape[1] // SINGLES * SINGLES
    for i in range(len(asked)):
        j, p = asked[i], nearest[asked[i]]
        place[j] = where[i]
        best[j] = min(best[j], square(q[j], h[place[j]], point_q[p], point_h[p]))
        bars[j] = best[j]
    for p in range(table.shape[0]):
        for start in range(0, len(bars), SINGLES):
            left = at_most(table[p], bars, start) if start < whole else few_at_most(table[p], bars, start)
            while left:
                j = start + lowest(left)
                left &= left - np.uint64(1)
                if nearest[j] != p:
                    best[j] = min(best[j], square(q[j], h[place[j]], point_q[p], point_h[p]))
                    bars[j] = best[j]
