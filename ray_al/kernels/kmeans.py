"""k-means: k-means++ seeding, then Lloyd's iterations over row blocks."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.halves import readable, wide
from ray_al.kernels.kmeanspp import sample
from ray_al.kernels.nearest_center import NearestCenter
from ray_al.kernels.passes import Rows

_SEED_ROWS = 8192
_PARTS = 8  # of the sums over rows: fixed, so that their order does not depend on the number of threads


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
        last, means = means, sums / np.bincount(nearest, minlength=clusters)[:, None]
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
    """(K, d) float64, shifted: distinct rows drawn by k-means++, among at most 32 random ones a cluster."""
    rows = max(_SEED_ROWS, 32 * clusters)
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
    """Bring sums (K, d) float64 of every cluster's rows up to date, in place: most rows stay where they are."""

    rows = readable(space.x)

    def work(ids: np.ndarray) -> np.ndarray:
        own = np.zeros_like(sums)
        for start in range(0, len(ids), space.rows):
            part = ids[start : start + space.rows]
            found = space.matrix.found(part) if rows is None else (rows, space.matrix.places(part))
            add_changes(*found, space.shift, old[part], new[part], own)
        return own

    for part in blocks.run(work, np.array_split(changed, _PARTS)):
        sums += part


@compiled
def add_changes(
    rows: np.ndarray, at: np.ndarray, shift: np.ndarray, old: np.ndarray, new: np.ndarray, sums: np.ndarray
) -> None:
    """Take rows (.., d), of `readable`, at places `at` (n,), less shift (d,), from the sums of their old clusters, if
    these are not -1, and add them to those of the new ones."""
    for i in range(len(at)):
        row, own = rows[at[i]], sums[new[i]]
        if old[i] >= 0:
            left = sums[old[i]]
            for k in range(len(row)):
                value = np.float64(wide(row[k]) - shift[k])
                left[k] -= value
                own[k] += value
        else:
            for k in range(len(row)):
                own[k] += np.float64(wide(row[k]) - shift[k])


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
