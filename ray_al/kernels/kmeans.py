"""k-means: k-means++ seeding, then Lloyd's iterations over row blocks."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.halves import wide
from ray_al.kernels.kmeanspp import sample
from ray_al.kernels.nearest_center import NearestCenter
from ray_al.kernels.passes import Rows
from ray_al.kernels.vectors import DOUBLES, fma, load, load_doubles, spread, store

_SEED_ROWS = 4096
_CHUNK = 16  # blocks of rows that are put in order together: a matrix may be larger than memory, and is read in parts
_PARTS = 32  # of a chunk, for threads


def kmeans(
    x: np.ndarray | Rows, clusters: int, seed: int, max_iter: int = 50, tol: float = 1e-2, momentum: float = 0.5
) -> tuple[np.ndarray, np.ndarray, float]:
    """k-means (Lloyd 1982; seeding of Arthur & Vassilvitskii 2007), Euclidean, of the rows of x, all of a matrix.

    Until it ends, centers go on beyond the means of their rows by `momentum` of the means' last move. Ends when no row
    changes its cluster, when a round lowers the inertia by less than `tol` of it, or after `max_iter` rounds. On image
    embeddings with hundreds of clusters the default takes 6 passes over the rows and ends 0.8 to 1.3 percent above
    where no row changes, which Lloyd's own rounds reach in 7 or 8; scikit-learn's MiniBatchKMeans ends there, too, or
    above it. A cluster that loses all its rows takes the row that is farthest from its own center, so no cluster of the
    answer is empty.

    Returns:
        assignment (N,) int32, centers (clusters, d) float32, and inertia: the sum of squared distances to them.

    Raises:
        ValueError: x is not finite, or there are not between 1 and N clusters.
    """
    space = Euclidean(x)
    space.check()
    if not 1 <= clusters <= space.count:
        raise ValueError(f"clusters is {clusters}, but it must lie in 1..{space.count}")
    centers = _seeds(space, clusters, np.random.default_rng(seed))  # (K, d) float64, shifted
    assign = NearestCenter(space, centers)
    nearest = np.full(space.count, -1, np.int32)
    sums = np.zeros_like(centers)
    inertia, means = np.inf, centers
    for number in range(max_iter):
        previous, before = nearest, inertia
        nearest, squares = assign(centers, nearest)
        inertia = float(squares.sum(dtype=np.float64))
        _fill_empty(nearest, squares, clusters)
        changed = np.flatnonzero(nearest != previous)
        _carry(space, changed, previous, nearest, sums)
        last, means = means, sums / np.bincount(nearest, minlength=clusters)[:, None] - space.shift
        centers = means
        if not len(changed) or before - inertia < tol * inertia:
            break
        if number:
            centers = means + momentum * (means - last)
    nearest, squares = assign(centers, nearest)
    for cluster, row in _fill_empty(nearest, squares, clusters):
        centers[cluster] = _moved(space, np.array([row])).numpy()[0]
    return nearest, (centers + space.shift).astype(np.float32), float(squares.sum(dtype=np.float64))


def _seeds(space: Euclidean, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """(K, d) float64, shifted: distinct rows drawn by k-means++, among 16 or more random ones a cluster."""
    rows = -(-max(_SEED_ROWS, 16 * clusters) // space.rows) * space.rows  # whole blocks: products have few shapes
    among = np.arange(space.count)
    part = space
    if rows < space.count:
        among = np.sort(rng.choice(space.count, rows, replace=False))
        part = Euclidean(space.x[among])
    ids, _ = sample(part, np.ones(part.count, bool), clusters, np.arange(part.count), rng)
    return _moved(space, among[ids]).numpy().astype(np.float64)


def _moved(space: Euclidean, ids: np.ndarray) -> torch.Tensor:
    """Rows `ids`, shifted, (m, d) float32."""
    return blocks.float_rows(space.x[ids], 0, len(ids), space.shift)


def _carry(space: Euclidean, changed: np.ndarray, old: np.ndarray, new: np.ndarray, sums: np.ndarray) -> None:
    """Bring sums (K, d) float64 of every cluster's rows, not shifted, up to date, in place: most rows stay.

    Rows come in the order of their clusters, in parts that share none: a sum's bits do not depend on the parts.
    """

    def work(part: slice) -> None:
        own = ids[part]
        for start in range(0, len(own), space.rows):
            some = own[start : start + space.rows]
            at = slice(part.start + start, part.start + start + len(some))
            add_rows(*space.matrix.found(some), cluster[at], sign[at], sums)

    for start in range(0, len(changed), _CHUNK * space.rows):
        some = changed[start : start + _CHUNK * space.rows]
        ids, cluster, sign = by_cluster(some, old, new, len(sums))
        cuts = np.linspace(0, len(ids), _PARTS + 1)[1:-1].astype(np.int64)
        ends = [0, *np.searchsorted(cluster, cluster[cuts]).tolist(), len(ids)]
        blocks.run(work, [slice(a, b) for a, b in itertools.pairwise(ends) if a < b])


@compiled
def by_cluster(
    changed: np.ndarray, old: np.ndarray, new: np.ndarray, clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows `changed` (m,) twice, as those that a cluster gets and as those that one loses if it was not -1: ids,
    cluster and 1 or -1, (e,) each, in the order of clusters and, within, of `changed`."""
    ends = np.zeros(clusters + 1, np.int64)
    for i in changed:
        ends[new[i] + 1] += 1
        if old[i] >= 0:
            ends[old[i] + 1] += 1
    ends = np.cumsum(ends)
    count = ends[clusters]
    ids, cluster, sign = np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.float64)
    for i in changed:
        for own, one in ((old[i], -1.0), (new[i], 1.0)):
            if own >= 0:
                at = ends[own]
                ids[at], cluster[at], sign[at] = i, own, one
                ends[own] += 1
    return ids, cluster, sign


@compiled
def add_rows(rows: np.ndarray, at: np.ndarray, cluster: np.ndarray, sign: np.ndarray, sums: np.ndarray) -> None:
    """Add rows (.., d), of `halves.loadable`, at places `at` (n,), with their sign to their clusters' sums (K, d)."""
    whole = sums.shape[1] // DOUBLES * DOUBLES
    for i in range(len(at)):
        row, own, one = rows[at[i]], sums[cluster[i]], spread(sign[i])
        for k in range(0, whole, DOUBLES):
            store(own, k, fma(one, load_doubles(row, k), load(own, k)))
        for k in range(whole, len(own)):
            own[k] += sign[i] * np.float64(wide(row[k]))


def _fill_empty(nearest: np.ndarray, squares: np.ndarray, clusters: int) -> list[tuple[int, int]]:
    """Give each empty cluster the row farthest from its center, in place; (cluster, row) of each move.

    Rows alone in their cluster stay.
    """
    sizes = np.bincount(nearest, minlength=clusters)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return []
    moves = []
    farthest = iter(np.argsort(-squares, kind="stable").tolist())
    for cluster in empty.tolist():
        row = next(row for row in farthest if sizes[nearest[row]] > 1)
        sizes[nearest[row]] -= 1
        nearest[row], squares[row] = cluster, 0
        moves.append((cluster, row))
    return moves
