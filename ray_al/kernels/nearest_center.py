"""The nearest of K centers for every row: bounds rule out most centers, `kernels.heads` says how."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import torch

from ray_al.kernels import blocks, heads
from ray_al.kernels.budget import Budget
from ray_al.kernels.compiled import compiled, least_ordered, ordered
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.halves import readable, wide
from ray_al.kernels.heads import RowFactors, square
from ray_al.kernels.passes import Rows
from ray_al.kernels.products import multiply

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
        moved = torch.from_numpy((points.astype(np.float64) - self.space.shift).astype(np.float32))
        others = blocks.alone(lambda: heads.of_points(moved, self.directions, self._dtype))

        kept, plain = self._rows, readable(self.space.x)
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
            find_nearest(bits, own, others.rounding, raw, points, nearest[start:stop], least[start:stop])

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
    """nearest (n,) and least (n,), in place, of rows (n, d) among centers (K, d).

    Args:
        rows: of `halves.readable`.
        table: (n, K) bits of the products of `heads`; K rounded up.
        sure: (n,) of `heads.RowFactors`; rounding: of `heads.PointFactors`.
    """
    half = np.float32(0.5)
    row = np.empty(rows.shape[1], np.float32)
    flags, left = np.empty(table.shape[1], np.uint8), np.empty(table.shape[1] + 1, np.int32)
    for j in range(len(table)):
        own = nearest[j] if nearest[j] >= 0 else largest(table[j], flags, left)
        for k in range(len(row)):
            row[k] = wide(rows[j, k])
        best = square(row, centers[own])
        bar = (sure[j] - best) * half
        low = least_ordered(table, bar - rounding * abs(bar))
        for k in range(reaching(table[j], low, flags, left)):
            c = left[k]
            if ordered(table[j, c]) < low or c == own:
                continue
            found = square(row, centers[c])
            if found < best or (found == best and c < own):
                best, own = found, c
                bar = (sure[j] - best) * half
                low = least_ordered(table, bar - rounding * abs(bar))
        nearest[j], least[j] = own, best


@compiled
def reaching(row: np.ndarray, low: Any, flags: np.ndarray, left: np.ndarray) -> int:
    """How many numbers of a row of bits (K,) come at or after `low` in their order; their places come first in left
    (K + 1,). flags is room for K bytes; K is a multiple of 8."""
    for i in range(len(row)):
        flags[i] = ordered(row[i]) >= low
    count, words = 0, flags.view(np.uint64)
    for word in range(len(words)):
        if words[word]:
            for i in range(8 * word, 8 * word + 8):  # without a branch, whose way nobody could guess
                left[count] = i
                count += flags[i]
    return count


@compiled
def largest(row: np.ndarray, flags: np.ndarray, left: np.ndarray) -> np.int32:
    """The place of the first largest number of a row of bits, with room as for `reaching`."""
    top = ordered(row[0])
    for i in range(len(row)):
        top = max(top, ordered(row[i]))
    reaching(row, top, flags, left)
    return left[0]
