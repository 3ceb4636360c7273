"""Greedy k-center: every pick is the item farthest from all centers and picks so far."""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.geometry import Euclidean, Geometry

_CANDIDATES = 256


def kcenter_greedy(
    x: np.ndarray, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-center (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489), Euclidean.

    The picks are those of the plain algorithm, which passes over x once a pick. Here a pass gives the 256 farthest
    items; picks are made among them while the best is at least as far as the 257th was at the pass, because distances
    only shrink. The next pass accounts for all these picks in one matrix product.

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
    best = np.where(free, np.inf, -1.0)  # (N,) squared distance to the nearest center; negative: not to be picked
    if k:
        space.lower(best, centers)
    priority = np.random.default_rng(seed).permutation(space.count)
    ids, squares = _pick_farthest(space, best, priority, k)
    return ids, np.sqrt(squares)


def _pick_farthest(space: Geometry, best: np.ndarray, priority: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    ids: list[int] = []
    squares: list[float] = []
    while len(ids) < k:
        leaders = _leaders(best, priority, _CANDIDATES + 1)
        candidates, beyond = leaders[:_CANDIDATES], leaders[_CANDIDATES:]
        bar = (best[beyond[0]], priority[beyond[0]]) if len(beyond) else (-1.0, -1)
        picks = _pick_among(space.pairs(candidates), best[candidates], priority[candidates], bar, k - len(ids))
        fresh = candidates[[pick for pick, _ in picks]]
        ids.extend(fresh.tolist())
        squares.extend(square for _, square in picks)
        best[fresh] = -1
        if len(ids) < k:
            space.lower(best, fresh)
    return np.asarray(ids, np.int64), np.asarray(squares, np.float64)


def _pick_among(
    table: np.ndarray, best: np.ndarray, priority: np.ndarray, bar: tuple[float, int], k: int
) -> list[tuple[int, float]]:
    """Up to k (position, squared distance) in order, while the farthest is no nearer than the bar."""
    picks: list[tuple[int, float]] = []
    while len(picks) < k:
        ties = np.flatnonzero(best == best.max())
        pick = ties[priority[ties].argmax()]
        if (best[pick], priority[pick]) <= bar:
            break
        picks.append((int(pick), float(best[pick])))
        open_ = best >= 0
        best = np.where(open_, np.minimum(best, table[pick]), -1)
        best[pick] = -1
    return picks


def _leaders(best: np.ndarray, priority: np.ndarray, count: int) -> np.ndarray:
    """The ids of the `count` pickable items of largest (best, priority), largest first."""
    ids = np.flatnonzero(best >= 0)
    if len(ids) > count:
        values = best[ids]
        bar = np.partition(values, len(ids) - count)[len(ids) - count]
        ids = ids[values >= bar]
    return ids[np.lexsort((priority[ids], best[ids]))[::-1][:count]]


def covering_radius(x: np.ndarray, centers: np.ndarray) -> float:
    """The largest distance of any row of x to its nearest center (ids).

    Raises:
        ValueError: x is not finite, an id does not exist, or there are no centers.
    """
    space = Euclidean(x)
    centers = blocks.check_ids(centers, space.count, "centers")
    if not len(centers):
        raise ValueError("covering_radius needs at least one center, got 0")
    best = np.full(space.count, np.inf)
    space.lower(best, centers)
    return math.sqrt(best.max())
