"""Inner loops of distances, compiled by numba: bounds rule out most pairs, the others are worked from differences.

A distance that is worked out depends on the two rows alone, and one that is ruled out is no minimum: so neither the
products that the bounds come from nor how points are grouped change a minimum's bits.
"""

from __future__ import annotations

import numba
import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.halves import wide
from ray_al.kernels.masks import at_most, lowest
from ray_al.kernels.tiles import TILE
from ray_al.kernels.vectors import DOUBLES, SINGLES, add, fma, load, load_doubles, spread, subtract, total

TINY = float(np.finfo(np.float32).tiny)  # products that are smaller may have become 0
_SAMPLE = 1024  # rows that a center is taken of
LARGEST = float(np.finfo(np.float32).max) / 8  # squared norms, so that no bound overflows


def noise(width: int) -> float:
    """What float32 may have made of a sum of `width` products, relative to the lengths of its factors."""
    return max(1e-5, width * 2.0**-24)


@compiled
def bounds(
    table: np.ndarray,
    norms: np.ndarray,
    lengths: np.ndarray,
    point_norms: np.ndarray,
    point_lengths: np.ndarray,
    error: np.float32,
    rounding: np.float32,
    least: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Products of points and rows, table (p, n), become lower bounds of their squared distances.

    least (n,) and nearest (n,) are set to each row's least bound and the first point that has it.

    Args:
        norms: (n,) squared, less what rounding may have added to them; lengths (n,); of the points likewise.
        error: of a product, relative to the lengths of both; `rounding` is that relative to itself.
    """
    points, n = table.shape
    least[:] = np.inf
    nearest[:] = 0
    for p in range(points):
        row, own, slack = table[p], point_norms[p], np.float32(2.0) * error * point_lengths[p]
        for j in range(n):
            value = row[j]
            row[j] = (norms[j] + own) - np.float32(2.0) * (value + rounding * abs(value)) - slack * lengths[j]
            nearest[j] = p if row[j] < least[j] else nearest[j]
            least[j] = min(row[j], least[j])


@compiled
def square(x: np.ndarray, y: np.ndarray) -> float:
    """|x - y|^2 from differences, in float64: 0 for equal rows. Its bits depend on the two rows alone; either may be of
    `halves.loadable`."""
    a = b = spread(np.float64(0))
    whole, rest = len(x) // (2 * DOUBLES) * 2 * DOUBLES, 0.0
    for k in range(0, whole, 2 * DOUBLES):
        gap = subtract(load_doubles(x, k), load_doubles(y, k))
        a = fma(gap, gap, a)
        gap = subtract(load_doubles(x, k + DOUBLES), load_doubles(y, k + DOUBLES))
        b = fma(gap, gap, b)
    for k in range(whole, len(x)):
        difference = np.float64(wide(x[k])) - np.float64(wide(y[k]))
        rest += difference * difference
    return total(add(a, b)) + rest


@compiled
def lower(
    table: np.ndarray,
    nearest: np.ndarray,
    asked: np.ndarray,
    rows: np.ndarray,
    where: np.ndarray,
    points: np.ndarray,
    best: np.ndarray,
) -> None:
    """Lower best (n,) float64 to the squared distances of rows `asked` (m,) to their nearest points.

    Args:
        table, nearest: of `bounds`. A distance is worked out only where its bound is below the best so far.
        where: (m,) places of those asked in `rows` (.., d), of `halves.loadable`; points (p, d).
    """
    place = np.full(table.shape[1], -1, np.int32)
    bars = np.full(table.shape[1], -np.inf, np.float32)
    whole = table.shape[1] // SINGLES * SINGLES
    for i in range(len(asked)):
        j = asked[i]
        place[j] = where[i]
        best[j] = min(best[j], square(rows[place[j]], points[nearest[j]]))
        bars[j] = best[j]
    for p in range(table.shape[0]):
        for start in range(0, len(bars), SINGLES):
            left = at_most(table[p], bars, start) if start < whole else few_at_most(table[p], bars, start)
            while left:
                j = start + lowest(left)
                left &= left - np.uint64(1)
                if nearest[j] != p:
                    best[j] = min(best[j], square(rows[place[j]], points[p]))
                    bars[j] = best[j]


@numba.njit(inline="always")
def few_at_most(row: np.ndarray, bars: np.ndarray, start: int) -> np.uint64:
    """`masks.at_most` where what is left from `start` on fills no vector."""
    mask = np.uint64(0)
    for j in range(start, len(row)):
        if row[j] <= bars[j]:
            mask |= np.uint64(1) << np.uint64(j - start)
    return mask


@compiled
def squares(rows: np.ndarray, width: int, start: int, step: int, out: np.ndarray) -> None:
    """out (m, m) float64 = `square` between rows of so many numbers, `in_tiles`: of every `step`-th tile from the
    start-th one on with the rows before them, and back; the diagonal is left."""
    found = np.empty(TILE)
    for first in range(start * TILE, len(out), step * TILE):
        four = rows[first : first + TILE]
        for i in range(min(first + TILE, len(out))):
            _four_squares(rows[i], four, width, found)
            for j in range(max(first, i + 1), min(first + TILE, len(out))):
                out[i, j] = out[j, i] = found[j - first]


@compiled
def _four_squares(x: np.ndarray, four: np.ndarray, width: int, out: np.ndarray) -> None:
    """out (4,) = `square` between the first `width` numbers of x and of each of `four` rows, float64."""
    y0, y1, y2, y3 = four[0], four[1], four[2], four[3]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(0.0)
    whole = width // (2 * DOUBLES) * 2 * DOUBLES
    for k in range(0, whole, 2 * DOUBLES):
        u, v, more = load(x, k), load(x, k + DOUBLES), k + DOUBLES
        g0, g1 = subtract(u, load(y0, k)), subtract(u, load(y1, k))
        g2, g3 = subtract(u, load(y2, k)), subtract(u, load(y3, k))
        a0, a1, a2, a3 = fma(g0, g0, a0), fma(g1, g1, a1), fma(g2, g2, a2), fma(g3, g3, a3)
        g0, g1 = subtract(v, load(y0, more)), subtract(v, load(y1, more))
        g2, g3 = subtract(v, load(y2, more)), subtract(v, load(y3, more))
        b0, b1, b2, b3 = fma(g0, g0, b0), fma(g1, g1, b1), fma(g2, g2, b2), fma(g3, g3, b3)
    out[0], out[1] = total(add(a0, b0)), total(add(a1, b1))
    out[2], out[3] = total(add(a2, b2)), total(add(a3, b3))
    for j in range(TILE):
        rest = 0.0
        for k in range(whole, width):
            rest += (x[k] - four[j, k]) * (x[k] - four[j, k])
        out[j] += rest


def center(x: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
    """(d,) float32 mean of up to _SAMPLE of the rows `ids`, or of all, to move rows by: it makes the rounding of
    distances small.

    0 where it is not finite, for the check of all rows to find the value.
    """
    count = len(x) if ids is None else len(ids)
    at = np.arange(min(count, _SAMPLE))
    if count > _SAMPLE:
        at = (at * ((count - 1) / (_SAMPLE - 1))).astype(np.int64)
        at[-1] = count - 1
    at = at if ids is None else ids if count <= _SAMPLE else ids[at]
    total = np.zeros(x.shape[1])
    with np.errstate(all="ignore"):
        if isinstance(x, np.ndarray) and x.dtype == np.float32 and x.flags.c_contiguous:
            _add_rows(blocks.borrow(x).numpy(), at, total)
        else:
            total = x[at].sum(0, dtype=np.float64)
        mean: np.ndarray = (total / len(at)).astype(np.float32)
        return mean if np.isfinite(mean).all() else np.nan_to_num(mean, posinf=0.0, neginf=0.0)


@compiled
def _add_rows(rows: np.ndarray, at: np.ndarray, total: np.ndarray) -> None:
    for i in range(len(at)):
        row = rows[at[i]]
        for k in range(len(total)):
            total[k] += np.float64(row[k])


@compiled
def measure(rows: np.ndarray, at: np.ndarray, shift: np.ndarray, norms: np.ndarray, half: np.ndarray) -> None:
    """What passes ask of rows (.., d), of `halves.loadable`, at places `at` (n,), each read once. Arrays of no columns
    or rows are not asked for.

    Args:
        norms: (2, n) squared norms of the rows less shift (d,), and of the rows as they are.
        half: (n, d) uint16, the bits in bfloat16 of the rows less shift, rounded to the nearest.
    """
    for j in range(len(at)):
        if norms.shape[1]:
            norms[0, j], norms[1, j] = _measured(rows[at[j]], shift)
        if len(half):
            _to_half(rows[at[j]], shift, half[j])


@compiled
def _measured(row: np.ndarray, shift: np.ndarray) -> tuple[float, float]:
    """`square` of a row and the shift, and `dot` of the row with itself."""
    a = b = c = d = spread(0.0)
    whole, rest, raw_rest = len(row) // (2 * DOUBLES) * 2 * DOUBLES, 0.0, 0.0
    for k in range(0, whole, 2 * DOUBLES):
        x, y = load_doubles(row, k), load_doubles(row, k + DOUBLES)
        c, d = fma(x, x, c), fma(y, y, d)
        x, y = subtract(x, load_doubles(shift, k)), subtract(y, load_doubles(shift, k + DOUBLES))
        a, b = fma(x, x, a), fma(y, y, b)
    for k in range(whole, len(row)):
        raw = np.float64(wide(row[k]))
        moved = raw - np.float64(shift[k])
        rest += moved * moved
        raw_rest += raw * raw
    return total(add(a, b)) + rest, total(add(c, d)) + raw_rest


@compiled
def _to_half(row: np.ndarray, shift: np.ndarray, out: np.ndarray) -> None:
    for k in range(len(row)):
        bits = np.float32(wide(row[k]) - shift[k]).view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        out[k] = np.uint16((bits + np.uint32(0x7FFF) + even) >> np.uint32(16))


@compiled
def square_norms(points: np.ndarray) -> np.ndarray:
    """(p,) float32 squared norms of points (p, d): each the same bits whatever points are beside it."""
    out = np.empty(len(points), np.float32)
    for p in range(len(points)):
        square = 0.0
        for k in range(points.shape[1]):
            square += np.float64(points[p, k]) * np.float64(points[p, k])
        out[p] = np.float32(square)
    return out
