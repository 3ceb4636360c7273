"""k-means: k-means++ seeding, then Lloyd's iterations by matrix products over row blocks."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.geometry import NOISE, Euclidean
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
    rows = _Assignment(space)
    for _ in range(max_iter):
        previous = rows.nearest.copy()
        rows.update(centers)
        _fill_empty(rows, centers)
        if np.array_equal(previous, rows.nearest):
            break
        moved = _means(space, rows.nearest, clusters)
        shift = np.square(moved - centers).sum()
        rows.loosen(np.sqrt(np.square(moved - centers).sum(1)))
        centers = moved
        if shift <= enough:
            break
    rows.update(centers)
    for cluster, row in _fill_empty(rows, centers):
        centers[cluster] = x[row].astype(np.float64) - space.shift
    inertia = float(rows.squares(centers).sum())
    return rows.nearest, (centers + space.shift).astype(np.float32), inertia


def _column_variance(space: Euclidean) -> float:
    """Mean over columns of the variance over rows."""

    def work(start: int, stop: int) -> np.ndarray:
        return _moved(space, start, stop).sum(0, dtype=torch.float64).numpy()

    mean = np.sum(blocks.map_blocks(work, space.count, space.rows), 0) / space.count
    total = space.norms.sum(dtype=np.float64) / space.count - np.square(mean).sum()
    return max(float(total), 0.0) / space.x.shape[1]


def _moved(space: Euclidean, start: int, stop: int) -> torch.Tensor:
    return blocks.float_rows(space.x, start, stop, space.shift)


class _Assignment:
    """The nearest center of every row, with bounds that spare most rows the look at all centers (Hamerly 2010).

    While a row's center is surely nearer than any other may have come, the row stays where it is.
    """

    def __init__(self, space: Euclidean) -> None:
        self.space = space
        self.nearest = np.full(space.count, -1, np.int32)
        self.upper = np.full(space.count, np.inf)  # (N,) at least the distance to the own center
        self.lower = np.zeros(space.count)  # (N,) at most the distance to any other

    def update(self, centers: np.ndarray) -> None:
        """Assign again the rows whose bounds leave it open."""
        rough, norms = blocks.alone(lambda: _rough(centers))

        def work(start: int, stop: int) -> None:
            rows = start + np.flatnonzero(self.upper[start:stop] >= self.lower[start:stop])
            if not len(rows):
                return
            if 4 * len(rows) > 3 * (stop - start):  # the rows as they lie are faster than a choice of most of them
                rows = np.arange(start, stop)
                block = blocks.float_rows(self.space.x, start, stop, self.space.shift)
            else:
                block = blocks.float_rows(self.space.x[rows], 0, len(rows), self.space.shift)
            table = torch.addmm(norms, block, rough.T, alpha=-2).numpy()
            nearest = table.argmin(1)  # numpy's is five times as fast as torch's
            own = self.space.norms[rows].astype(np.float64)
            first = table[np.arange(len(rows)), nearest] + own
            table[np.arange(len(rows)), nearest] = np.inf
            second = torch.from_numpy(table).amin(1).numpy() + own
            slack = NOISE * (own + float(norms.max()))  # what float32 may have made of the distances
            self.nearest[rows] = nearest
            self.upper[rows] = np.sqrt(np.maximum(first, 0) + slack)
            self.lower[rows] = np.sqrt(np.maximum(second - slack, 0))

        count = blocks.block_rows(centers.shape[1] + len(centers))
        blocks.map_blocks(work, self.space.count, count)

    def loosen(self, moves: np.ndarray) -> None:
        """Keep the bounds true after the centers moved by these distances (K,)."""
        order = np.argsort(moves)
        others = np.full(len(moves), moves[order[-1]])
        others[order[-1]] = moves[order[-2]] if len(moves) > 1 else 0.0  # the farthest move of another center
        self.upper += moves[self.nearest]
        self.lower -= others[self.nearest]

    def squares(self, centers: np.ndarray) -> np.ndarray:
        """(N,) float64 squared distance to the own center, from differences: duplicates of a center are at 0."""
        rough, _ = blocks.alone(lambda: _rough(centers))

        def work(start: int, stop: int) -> np.ndarray:
            own = rough[torch.from_numpy(self.nearest[start:stop])]
            return (_moved(self.space, start, stop) - own).square_().sum(1).double().numpy()

        return np.concatenate(blocks.map_blocks(work, self.space.count, self.space.rows))


def _rough(centers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    rough = blocks.float_rows(centers, 0, len(centers))
    return rough, rough.square().sum(1)


def _fill_empty(rows: _Assignment, centers: np.ndarray) -> list[tuple[int, int]]:
    """Give each empty cluster the row farthest from its center, in place; (cluster, row) of each move.

    Rows alone in their cluster stay.
    """
    sizes = np.bincount(rows.nearest, minlength=len(centers))
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return []
    moves = []
    farthest = iter(np.argsort(-rows.squares(centers), kind="stable").tolist())
    for cluster in empty.tolist():
        row = next(row for row in farthest if sizes[rows.nearest[row]] > 1)
        sizes[rows.nearest[row]] -= 1
        rows.nearest[row], rows.upper[row] = cluster, np.inf
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
