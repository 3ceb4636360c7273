"""The nearest of K centers for every row: bounds rule out most centers, `kernels.heads` says how."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks, heads
from ray_al.kernels.compiled import compiled
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.heads import Split, split, square

_TABLE = 1 << 18  # entries of a block's table of bounds: it stays in the second cache


class NearestCenter:
    """Finds nearest centers among rows of one matrix again and again, as the centers move.

    Args:
        space: the rows.
        centers: (K, d), as they are at first: how many directions are worth their product is estimated from them.
    """

    def __init__(self, space: Euclidean, centers: np.ndarray) -> None:
        self.space = space
        self.directions = blocks.alone(lambda: self._choose(centers))
        width = space.x.shape[1] if self.directions is None else self.directions.shape[1]
        self.rows = blocks.block_rows(max(width, len(centers) * blocks.BLOCK_ELEMENTS // _TABLE))
        self._split = None if self.directions is None else self._split_rows(self.directions)

    def __call__(self, centers: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For centers (K, d) float64, shifted as `space` is: (N,) int32 the nearest, the first of equal ones, and (N,)
        float32 squared distances.

        `near` (N,) int32 is a guess of the answer, or -1; it changes the time alone.
        """
        least = np.empty(self.space.count, np.float32)
        nearest = near.copy()
        points = (centers + self.space.shift).astype(np.float32)
        moved = torch.from_numpy((points.astype(np.float64) - self.space.shift).astype(np.float32))
        parts = blocks.alone(lambda: split(moved, self.directions))

        def work(start: int, stop: int) -> None:
            rows = self.part(start, stop)
            table = (rows.head @ parts.head.T).numpy()
            x = self.space.x[start:stop]
            # A copy where rows are not side by side: the compiled loop has other last bits for them.
            raw = x if x.dtype == np.float32 and x.flags.c_contiguous else blocks.float_rows(x, 0, len(x)).numpy()
            find_nearest(table, *rows[1:], *parts[1:], raw, points, nearest[start:stop], least[start:stop])

        blocks.map_blocks(work, self.space.count, self.rows)
        return nearest, least

    def part(self, start: int, stop: int) -> Split:
        if self._split is None:
            return split(blocks.float_rows(self.space.x, start, stop, self.space.shift), None)
        return Split(*(part[start:stop] for part in self._split))  # type: ignore[arg-type]

    def _split_rows(self, directions: torch.Tensor) -> Split:
        count = self.space.count
        whole = Split(torch.empty((count, directions.shape[1])), *(np.empty(count, np.float32) for _ in range(3)))

        def work(start: int, stop: int) -> None:
            part = split(blocks.float_rows(self.space.x, start, stop, self.space.shift), directions)
            whole.head[start:stop] = part.head
            for values, found in zip(whole[1:], part[1:], strict=True):
                values[start:stop] = found

        blocks.map_blocks(work, count, self.space.rows)
        return whole

    def _choose(self, centers: np.ndarray) -> torch.Tensor | None:
        sample = heads.sample_rows(self.space.x, self.space.shift)
        return heads.choose(sample, self.space.count, _means(sample, torch.from_numpy(centers.astype(np.float32))))


def _means(rows: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Means of the rows nearest to each center that has any: what centers that are rows will soon be like."""
    nearest = torch.cdist(rows, centers).argmin(1)
    sizes = torch.bincount(nearest, minlength=len(centers))
    sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
    return sums[sizes > 0] / sizes[sizes > 0, None]


@compiled
def find_nearest(
    table: np.ndarray,
    low: np.ndarray,
    rest: np.ndarray,
    error: np.ndarray,
    center_low: np.ndarray,
    center_rest: np.ndarray,
    center_error: np.ndarray,
    rows: np.ndarray,
    centers: np.ndarray,
    nearest: np.ndarray,
    least: np.ndarray,
) -> None:
    """nearest (n,) and least (n,), in place, of rows (n, d) among centers (K, d).

    Args:
        table: (n, K) float32 products of heads; overwritten.
        low, rest, error: (n,) of the rows' parts; center_...: (K,) of the centers'.
    """
    n, clusters = table.shape
    left = np.empty(clusters, np.int32)
    for j in range(n):
        bounds, own = table[j], nearest[j]
        for c in range(clusters):
            gap = max(abs(rest[j] - center_rest[c]) - (error[j] + center_error[c]), np.float32(0.0))
            bounds[c] = (low[j] + center_low[c]) - np.float32(2.0) * bounds[c] + gap * gap
        if own < 0:
            own = np.int32(np.argmin(bounds))
        best = square(rows[j], centers[own])
        count = 0
        for c in range(clusters):
            left[count] = c
            count += bounds[c] <= best
        for i in range(count):
            c = left[i]
            found = square(rows[j], centers[c])
            if found < best or (found == best and c < own):
                best, own = found, c
        nearest[j], least[j] = own, best
