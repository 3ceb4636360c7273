"""Greedy k-center: every pick is the item farthest from all centers and picks so far."""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.coverage import Coverage, Leaders, RowCoverage
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.passes import Rows

_CANDIDATES = 256  # at least: where rows are many, a pass costs more than a larger table of candidates


def kcenter_greedy(
    x: np.ndarray | Rows, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-center (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489), Euclidean.

    The picks are those of the plain algorithm, which passes over x once a pick. Here a pass gives the m farthest
    items, m = max(256, sqrt(N)); picks are made among them while the best is at least as far as the next one was at the
    pass, because distances only shrink. The next pass accounts for all these picks in one matrix product.

    Args:
        x: (N, d) float32, float16 or uint8.
        centers: ids that cover from the start; they are not picked. With none, the first pick is random.
        exclude: more ids that may not be picked.
        seed: breaks ties between equally far items.

    Returns:
        ids (k,) int64 in order of picking, and the distance (k,) float64 of each to its nearest center when it was
        picked; inf for a first pick without centers.

    Raises:
        ValueError: x is not finite, an id does not exist, or fewer than k items can be picked.
    """
    space = Euclidean(x)
    centers = blocks.check_ids(centers, space.count, "centers")
    free = blocks.free_mask(space.count, k, centers, blocks.check_ids(exclude, space.count, "exclude"))
    coverage = RowCoverage(space, free, seed)
    coverage.cover(centers)
    return pick_farthest(coverage, k, space.count)


def pick_farthest(coverage: Coverage, k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """k picks of `count` items, one after another the farthest: ids (k,) and their distances (k,).

    `kcenter_greedy` says how.

    On return the coverage knows of all picks but those of the last pass.
    """
    ids, squares = np.empty(0, np.int64), np.empty(0)
    candidates = max(_CANDIDATES, math.isqrt(count))
    while len(ids) < k:
        leaders = coverage.leaders(candidates + 1)
        table = coverage.pairs(leaders.ids[:candidates])
        picks, far = _pick_among(table, leaders, k - len(ids))
        ids, squares = np.concatenate([ids, leaders.ids[picks]]), np.concatenate([squares, far])
        if len(ids) < k:
            coverage.cover(leaders.ids[picks])
    return ids, np.sqrt(squares)


def _pick_among(table: np.ndarray, leaders: Leaders, k: int) -> tuple[list[int], list[float]]:
    """Up to k positions of leaders and squared distances, in order, while the farthest is no nearer than the last
    leader was: that one stands for all items that are no candidates."""
    count = len(table)
    best, priority = leaders.squares[:count].copy(), leaders.priority
    bar = (leaders.squares[count], priority[count]) if len(leaders.ids) > count else (-1.0, 0)
    picks: list[int] = []
    squares: list[float] = []
    while len(picks) < k:
        ties = np.flatnonzero(best == best.max())
        pick = int(ties[priority[ties].argmax()])
        if (best[pick], priority[pick]) <= bar:
            break
        picks.append(pick)
        squares.append(float(best[pick]))
        best = np.where(best >= 0, np.minimum(best, table[pick]), -1)
        best[pick] = -1
    return picks, squares


def covering_radius(x: np.ndarray | Rows, centers: np.ndarray) -> float:
    """The largest distance of any row of x to its nearest center (ids).

    Raises:
        ValueError: x is not finite, an id does not exist, or there are no centers.
    """
    space = Euclidean(x)
    centers = blocks.check_ids(centers, space.count, "centers")
    if not len(centers):
        raise ValueError("covering_radius needs at least one center, got 0")
    best = np.full(space.count, np.inf)
    space.cover(best, centers)
    return math.sqrt(best.max())
