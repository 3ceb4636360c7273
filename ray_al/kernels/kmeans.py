"""k-means: k-means++ seeding, then Lloyd's iterations by matrix products over row blocks."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.kmeanspp import sample


def kmeans(
    x: np.ndarray, clusters: int, seed: int, max_iter: int = 50, tol: float = 1e-4
) -> tuple[np.ndarray, np.ndarray, float]:
    """k-means (Lloyd 1982; seeding of Arthur & Vassilvitskii 2007), Euclidean.

    Ends when no row changes its cluster, when the squared moves of all centers sum to no more than `tol` times the
    mean variance of a column (as scikit-learn does), or after `max_iter` rounds. A cluster that loses all its rows
    takes the row that is farthest from its own center, so no cluster of the answer is empty.

    Returns:
        assignment (N,) int32, centers (clusters, d) float32, and inertia: the sum of squared distances to them.

    Raises:
        ValueError: x is not finite, or there are not between 1 and N clusters.
    """
    space = Euclidean(x)
    if not 1 <= clusters <= space.count:
        raise ValueError(f"clusters is {clusters}, but it must lie in 1..{space.count}")
    rng = np.random.default_rng(seed)
    everything = np.arange(space.count)
    ids, _ = sample(space, np.ones(space.count, bool), clusters, everything, rng)
    centers = x[ids].astype(np.float64) - space.shift  # (K, d)
    enough = tol * _column_variance(space)
    assignment = np.full(space.count, -1, np.int32)
    for _ in range(max_iter):
        previous = assignment
        assignment = _assign(space, centers)
        _fill_empty(space, centers, assignment)
        if np.array_equal(previous, assignment):
            break
        moved = _means(space, assignment, clusters)
        shift = np.square(moved - centers).sum()
        centers = moved
        if shift <= enough:
            break
    assignment = _assign(space, centers)
    for cluster, row in _fill_empty(space, centers, assignment):
        centers[cluster] = x[row].astype(np.float64) - space.shift
    inertia = float(_squares(space, centers, assignment).sum())
    return assignment, (centers + space.shift).astype(np.float32), inertia


def _column_variance(space: Euclidean) -> float:
    """Mean over columns of the variance over rows."""

    def work(start: int, stop: int) -> np.ndarray:
        return _moved(space, start, stop).sum(0, dtype=torch.float64).numpy()

    mean = np.sum(blocks.map_blocks(work, space.count, space.rows), 0) / space.count
    total = space.norms.sum(dtype=np.float64) / space.count - np.square(mean).sum()
    return max(float(total), 0.0) / space.x.shape[1]


def _moved(space: Euclidean, start: int, stop: int) -> torch.Tensor:
    return blocks.float_rows(space.x, start, stop, space.shift)


def _assign(space: Euclidean, centers: np.ndarray) -> np.ndarray:
    """(N,) int32 nearest center of every row."""
    rough, norms = blocks.alone(lambda: _rough(centers))

    def work(start: int, stop: int) -> np.ndarray:
        table = torch.addmm(norms, _moved(space, start, stop), rough.T, alpha=-2)
        return table.numpy().argmin(1).astype(np.int32)  # numpy's is five times as fast as torch's

    return np.concatenate(blocks.map_blocks(work, space.count, blocks.block_rows(centers.shape[1] + len(centers))))


def _rough(centers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    rough = blocks.float_rows(centers, 0, len(centers))
    return rough, rough.square().sum(1)


def _squares(space: Euclidean, centers: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """(N,) float64 squared distance of every row to its center, from differences: duplicates of a center are at 0."""
    rough, _ = blocks.alone(lambda: _rough(centers))

    def work(start: int, stop: int) -> np.ndarray:
        own = rough[torch.from_numpy(assignment[start:stop])]
        return (_moved(space, start, stop) - own).square_().sum(1).double().numpy()

    return np.concatenate(blocks.map_blocks(work, space.count, space.rows))


def _fill_empty(space: Euclidean, centers: np.ndarray, assignment: np.ndarray) -> list[tuple[int, int]]:
    """Give each empty cluster the row farthest from its center, in place; (cluster, row) of each move.

    Rows alone in their cluster stay.
    """
    sizes = np.bincount(assignment, minlength=len(centers))
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return []
    moves = []
    farthest = iter(np.argsort(-_squares(space, centers, assignment), kind="stable").tolist())
    for cluster in empty.tolist():
        row = next(row for row in farthest if sizes[assignment[row]] > 1)
        sizes[assignment[row]] -= 1
        assignment[row] = cluster
        moves.append((cluster, row))
    return moves


def _means(space: Euclidean, assignment: np.ndarray, clusters: int) -> np.ndarray:
    """(K, d) float64 mean of every cluster's rows; clusters are never empty here."""
    order = np.argsort(assignment, kind="stable")
    ends = np.cumsum(np.bincount(assignment, minlength=clusters))
    shift = space.shift.astype(np.float64)
    out = np.empty((clusters, space.x.shape[1]))

    def work(cluster: int) -> None:
        members = order[ends[cluster - 1] if cluster else 0 : ends[cluster]]
        total = np.zeros(space.x.shape[1])
        for start in range(0, len(members), space.rows):
            total += space.x[members[start : start + space.rows]].sum(0, dtype=np.float64)
        out[cluster] = total / len(members) - shift

    blocks.run(work, range(clusters))
    return out
