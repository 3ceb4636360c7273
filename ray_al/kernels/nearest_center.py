"""The nearest of K centers for every row: bounds rule out most centers, `kernels.heads` says how."""

from __future__ import annotations

import threading
import weakref

import numba
import numpy as np
import torch

from ray_al.kernels import blocks, heads
from ray_al.kernels.budget import Budget
from ray_al.kernels.compiled import compiled, least_ordered, ordered
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.halves import loadable, wide
from ray_al.kernels.heads import RowFactors
from ray_al.kernels.masks import lowest, reaching
from ray_al.kernels.passes import Rows
from ray_al.kernels.products import multiply
from ray_al.kernels.vectors import (
    SHORTS,
    SINGLES,
    add,
    aligned,
    fma,
    lined_up,
    load,
    load_singles,
    spread,
    store,
    subtract,
    total,
)

KEPT_BYTES = Budget(1 << 28)  # of what is kept of matrices for their next clusterings
_TABLE = 1 << 22  # bytes of a block's products: calls of bfloat16's routine are costly, the next cache is not


class NearestCenter:
    """Finds nearest centers among rows of one matrix again and again, as the centers move.

    Args:
        space: the rows.
        centers: (K, d), as they are at first: how many directions are worth their product is estimated from them.
    """

    def __init__(self, space: Euclidean, centers: np.ndarray) -> None:
        self.space = space
        self.directions, self._rows = _heads(space, centers)
        self._dtype = torch.float32 if self._rows is None else self._rows.factors.dtype
        width = space.x.shape[1] if self.directions is None else self.directions.shape[1]
        self.rows = blocks.block_rows(max(width, len(centers) * self._dtype.itemsize * blocks.BLOCK_ELEMENTS // _TABLE))

    def __call__(self, centers: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For centers (K, d) float64, shifted as `space` is: (N,) int32 the nearest, the first of equal ones, and (N,)
        float32 squared distances.

        `near` (N,) int32 is a guess of the answer, or -1; it changes the time alone.
        """
        least = np.empty(self.space.count, np.float32)
        nearest = near.copy()
        points = (centers + self.space.shift).astype(np.float32)
        wide_points = aligned(points, len(points), -(-points.shape[1] // SINGLES) * SINGLES)
        wide_points[:, : points.shape[1]], wide_points[:, points.shape[1] :] = points, 0
        moved = torch.from_numpy((points.astype(np.float64) - self.space.shift).astype(np.float32))
        others = blocks.alone(lambda: heads.of_points(moved, self.directions, self._dtype))

        kept, plain = self._rows, loadable(self.space.x)
        sure = np.empty(0, np.float32) if kept is None else kept.sure(others)

        def work(start: int, stop: int) -> None:
            if kept is None:
                rows = heads.of_rows(blocks.float_rows(self.space.x, start, stop, self.space.shift), None, self._dtype)
                factors, own = rows.factors, rows.sure(others)
            else:
                factors, own = kept.factors[start:stop], sure[start:stop]
            table = multiply(factors, others.factors, "nearest")
            bits = table.view(torch.int16 if table.dtype == torch.bfloat16 else torch.int32).numpy()
            raw = self.space.matrix.floats(start, stop).numpy() if plain is None else plain[start:stop]
            find_nearest(bits, own, others.rounding, raw, wide_points, nearest[start:stop], least[start:stop])

        blocks.map_blocks(work, self.space.count, self.rows)
        return nearest, least


_Heads = tuple[torch.Tensor | None, RowFactors | None]  # directions, and what bounds need of the rows; or nothing helps


class _Kept:
    """Heads that were chosen for so many clusters."""

    def __init__(self, clusters: int, found: _Heads) -> None:
        self.clusters, self.found = clusters, found


_kept: weakref.WeakKeyDictionary[Rows, _Kept] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _heads(space: Euclidean, centers: np.ndarray) -> _Heads:
    """Of a matrix's rows; kept with it, while memory allows, for clusterings of about as many clusters to come.

    They change the time alone.
    """
    if len(centers) < heads.FEW:
        return None, None
    with _lock:
        kept = _kept.get(space.matrix)
    if kept and kept.clusters <= 4 * len(centers) <= 16 * kept.clusters:  # a trajectory's number grows
        return kept.found
    found = _find_heads(space, centers)
    size = sum(part.nbytes for part in found[1] or ())
    if KEPT_BYTES.take(size):
        new = _Kept(len(centers), found)
        weakref.finalize(new, KEPT_BYTES.give, size)
        with _lock:
            _kept[space.matrix] = new
    return found


def _find_heads(space: Euclidean, centers: np.ndarray) -> _Heads:
    def choose() -> torch.Tensor | None:
        sample = heads.sample_rows(space.x, space.shift)
        return heads.choose(sample, space.count, _means(sample, torch.from_numpy(centers.astype(np.float32))))

    directions = blocks.alone(choose)
    if directions is None:
        return None, None
    width = directions.shape[1] + heads.MORE
    whole = RowFactors(torch.empty((space.count, width), dtype=heads.kind()), *np.empty((3, space.count), np.float32))

    def work(start: int, stop: int) -> None:
        part = heads.of_rows(blocks.float_rows(space.x, start, stop, space.shift), directions, heads.kind())
        whole.factors[start:stop] = part.factors
        for values, found in zip(whole[1:], part[1:], strict=True):
            values[start:stop] = found

    blocks.map_blocks(work, space.count, space.rows)
    return directions, whole


def _means(rows: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Means of the rows nearest to each center that has any: what centers that are rows will soon be like."""
    nearest = torch.cdist(rows, centers).argmin(1)
    sizes = torch.bincount(nearest, minlength=len(centers))
    sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
    return sums[sizes > 0] / sizes[sizes > 0, None]


@compiled
def find_nearest(
    table: np.ndarray,
    sure: np.ndarray,
    rounding: np.float32,
    rows: np.ndarray,
    centers: np.ndarray,
    nearest: np.ndarray,
    least: np.ndarray,
) -> None:
    """nearest (n,) and least (n,), in place, of rows (n, d) among centers (K, w); w is d rounded up, with zeros.

    Args:
        rows: of `halves.loadable`.
        table: (n, K) bits of the products of `heads`; K rounded up.
        sure: (n,) of `heads.RowFactors`; rounding: of `heads.PointFactors`.
    """
    half, step = np.float32(0.5), SHORTS * 2 // table.itemsize
    row = lined_up(centers, 1, centers.shape[1])[0]
    row[:] = 0
    for j in range(len(table)):
        widen(rows[j], row)
        bits = table[j]
        own = nearest[j] if nearest[j] >= 0 else largest(bits, step)
        best = square(row, centers[own])
        bar = (sure[j] - best) * half
        low = least_ordered(table, bar - rounding * abs(bar))
        for start in range(0, len(bits), step):
            left = reaching(bits, start, low)
            while left:
                c = start + lowest(left)
                left &= left - np.uint64(1)
                if c == own:
                    continue
                found = square(row, centers[c])
                if found < best or (found == best and c < own):
                    best, own = found, c
                    bar = (sure[j] - best) * half
                    low = least_ordered(table, bar - rounding * abs(bar))
                    left &= reaching(bits, start, low)
        nearest[j], least[j] = own, best


@numba.njit(inline="always")
def widen(source: np.ndarray, out: np.ndarray) -> None:
    """The first numbers of out (w,) = a row (d,) of `halves.loadable`, in float32."""
    whole = len(source) // SINGLES * SINGLES
    for k in range(0, whole, SINGLES):
        store(out, k, load_singles(source, k))
    for k in range(whole, len(source)):
        out[k] = wide(source[k])


@numba.njit(inline="always")
def square(x: np.ndarray, y: np.ndarray) -> np.float32:
    """|x - y|^2 from differences: 0 for equal rows (w,) of whole vectors. Its bits depend on the two rows alone."""
    a = b = c = d = spread(np.float32(0))  # sums that need not wait for each other
    whole = len(x) // (4 * SINGLES) * 4 * SINGLES
    for k in range(0, whole, 4 * SINGLES):
        gap = subtract(load(x, k), load(y, k))
        a = fma(gap, gap, a)
        gap = subtract(load(x, k + SINGLES), load(y, k + SINGLES))
        b = fma(gap, gap, b)
        gap = subtract(load(x, k + 2 * SINGLES), load(y, k + 2 * SINGLES))
        c = fma(gap, gap, c)
        gap = subtract(load(x, k + 3 * SINGLES), load(y, k + 3 * SINGLES))
        d = fma(gap, gap, d)
    for k in range(whole, len(x), SINGLES):
        gap = subtract(load(x, k), load(y, k))
        a = fma(gap, gap, a)
    return total(add(add(a, b), add(c, d)))


@numba.njit(inline="always")
def largest(bits: np.ndarray, step: int) -> int:
    """The place of the first largest number of a row of bits, in whole vectors of `step` numbers."""
    top = ordered(bits[0])
    for i in range(len(bits)):
        top = max(top, ordered(bits[i]))
    start = 0
    while not reaching(bits, start, top):
        start += step
    return start + lowest(reaching(bits, start, top))
