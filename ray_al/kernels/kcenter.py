"""Greedy k-center: every pick is the item farthest from all centers and picks so far."""

from __future__ import annotations

import math

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.coverage import Bar, Coverage, Leaders, RowCoverage
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.passes import Rows
from ray_al.kernels.some_rows import SomeRows

_CANDIDATES = 384  # at least: where rows are many, a pass costs more than a larger table of candidates
_SHARE = 8  # one of so many rows is near to being picked
_NEAR, _NEAR_BYTES = 1 << 15, 1 << 24  # of these at most: to order them and to pass over them is to cost little


def kcenter_greedy(
    x: np.ndarray | Rows, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-center (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489), Euclidean.

    The picks are those of the plain algorithm, which passes over x once a pick, but for ties: distances that are equal
    to the last bits of a float64 may count as equal or not. Distances only shrink: picks can be made among the farthest
    items alone while the best of them is at least as far as the farthest other one was. So a pass over x gives the
    farthest items, up to an eighth of all, and a pass over these the farthest few hundred of them, whose distances are
    all known; what was picked there enters the next pass over the eighth, and all that was picked there the next one
    over x, as one matrix product. Hundreds of picks need one or two passes over x. Among a few thousand rows there is
    no level between.

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
    return pick_farthest(coverage, k, space.x)


def pick_farthest(coverage: Coverage, k: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k picks, one after another the farthest, of the rows of x (N, d): ids (k,) and their distances (k,).

    `kcenter_greedy` says how.

    On return the coverage knows of all picks but those of the last pass.
    """
    ids, squares = np.empty(0, np.int64), np.empty(0)
    near = min(len(x) // _SHARE, _NEAR, _NEAR_BYTES // x[0].nbytes)
    candidates = max(_CANDIDATES, math.isqrt(len(x)))
    if near < 2 * candidates:  # few rows, or wide ones: no level between
        near = candidates
    while len(ids) < k:
        leaders = coverage.leaders(near + 1)
        bar = leaders.bar(near)
        picks, far = _pick_near(coverage, leaders.upto(near), bar, candidates, k - len(ids), x)
        ids, squares = np.concatenate([ids, leaders.ids[picks]]), np.concatenate([squares, far])
        if len(ids) < k:
            coverage.cover(leaders.ids[picks])
    return ids, np.sqrt(squares)


def _pick_near(
    coverage: Coverage, near: Leaders, bar: Bar, candidates: int, k: int, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Up to k places in `near` and squared distances, in order, while the farthest comes before `bar`: that stands for
    all items that are not near."""
    picks, squares = np.empty(0, np.int64), np.empty(0)
    first = Leaders(np.arange(len(near.ids)), near.squares, near.priority)
    own: RowCoverage | None = None
    while True:
        table = coverage.pairs(near.ids[first.ids[:candidates]])
        new, far = _pick_among(table, first.upto(candidates), max(bar, first.bar(candidates)), k - len(picks))
        picks, squares = np.concatenate([picks, first.ids[new]]), np.concatenate([squares, far])
        if len(picks) == k or candidates >= len(near.ids) or math.isinf(bar[0]):
            return picks, squares
        if own is None:
            rows = Euclidean(SomeRows(x, near.ids))
            own = RowCoverage(rows, np.ones(len(near.ids), bool), 0, near.squares.copy(), priority=near.priority)
        own.cover(first.ids[new])
        first = own.leaders(candidates + 1)
        if first.bar(0) <= bar:
            return picks, squares


def _pick_among(table: np.ndarray, leaders: Leaders, bar: Bar, k: int) -> tuple[list[int], list[float]]:
    """Up to k positions of leaders and squared distances, in order, while the farthest comes before `bar`.

    table (m, m): squared distances between the leaders.
    """
    best, priority = leaders.squares.copy(), leaders.priority
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
