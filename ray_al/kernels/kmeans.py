"""k-means: k-means++ seeding, then Lloyd's iterations by matrix products over row blocks."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.kmeanspp import sample

_PARTS = 8  # of the sums over rows: fixed, so that their order does not depend on the number of threads


def kmeans(
    x: np.ndarray, clusters: int, seed: int, max_iter: int = 50, tol: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, float]:
    """k-means (Lloyd 1982; seeding of Arthur & Vassilvitskii 2007), Euclidean.

    Ends when no row changes its cluster, when a round lowers the inertia by less than `tol` of it, or after `max_iter`
    rounds. On image embeddings with hundreds of clusters the default takes about 12 rounds and ends half a percent
    above the inertia that 50 rounds reach. A cluster that loses all its rows takes the row that is farthest from its
    own center, so no cluster of the answer is empty.

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
    centers = _moved(space, ids).numpy().astype(np.float64)  # (K, d)
    nearest = np.full(space.count, -1, np.int32)
    sums = np.zeros_like(centers)
    inertia = np.inf
    for _ in range(max_iter):
        previous, before = nearest, inertia
        nearest, inertia = _assign(space, centers)
        _fill_empty(space, nearest, centers)
        changed = np.flatnonzero(nearest != previous)
        if not len(changed):
            break
        _carry(space, changed, previous, nearest, sums)
        centers = sums / np.bincount(nearest, minlength=clusters)[:, None]
        if before - inertia < tol * inertia:
            break
    nearest, _ = _assign(space, centers)
    for cluster, row in _fill_empty(space, nearest, centers):
        centers[cluster] = _moved(space, np.array([row])).numpy()[0]
    return nearest, (centers + space.shift).astype(np.float32), float(_squares(space, nearest, centers).sum())


def _moved(space: Euclidean, ids: np.ndarray) -> torch.Tensor:
    """Rows `ids`, shifted, (m, d) float32."""
    return blocks.float_rows(space.x[ids], 0, len(ids), space.shift)


def _assign(space: Euclidean, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """The nearest center of every row (N,) int32, the first of equal ones; and the sum of squared distances to them."""
    rough, norms = blocks.alone(lambda: _rough(centers))
    nearest = np.empty(space.count, np.int32)

    def work(start: int, stop: int) -> float:
        block = blocks.float_rows(space.x, start, stop, space.shift)
        return find_nearest((rough @ block.T).numpy(), norms, space.norms[start:stop], nearest[start:stop])

    return nearest, sum(blocks.map_blocks(work, space.count, blocks.block_rows(sum(centers.shape))))


def _rough(centers: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    rough = blocks.float_rows(centers, 0, len(centers))
    return rough, rough.square().sum(1).numpy()


@compiled
def find_nearest(product: np.ndarray, centers: np.ndarray, rows: np.ndarray, out: np.ndarray) -> float:
    """out (n,) int32 = the center with the least |c|^2 - 2 c.x, the first of equal ones.

    Args:
        product: (K, n) float32 c.x; centers (K,) and rows (n,) are squared norms.

    Returns:
        The sum of squared distances to these centers.
    """
    clusters, n = product.shape
    least = np.full(n, np.inf, np.float32)
    out[:] = 0
    for c in range(clusters):
        row, norm = product[c], centers[c]
        for j in range(n):
            value = norm - np.float32(2.0) * row[j]
            out[j] = c if value < least[j] else out[j]
            least[j] = min(value, least[j])
    total = 0.0
    for j in range(n):
        total += max(np.float64(least[j]) + np.float64(rows[j]), 0.0)
    return total


def _carry(space: Euclidean, changed: np.ndarray, old: np.ndarray, new: np.ndarray, sums: np.ndarray) -> None:
    """Bring sums (K, d) float64 of every cluster's rows up to date, in place: most rows stay where they are."""

    def work(ids: np.ndarray) -> np.ndarray:
        found = np.zeros_like(sums)
        for start in range(0, len(ids), space.rows):
            part = ids[start : start + space.rows]
            add_changes(_moved(space, part).numpy(), old[part], new[part], found)
        return found

    for part in blocks.run(work, np.array_split(changed, _PARTS)):
        sums += part


@compiled
def add_changes(rows: np.ndarray, old: np.ndarray, new: np.ndarray, sums: np.ndarray) -> None:
    """Take each row (n, d) from the sum of its old cluster, if that is not -1, and add it to that of the new one."""
    n, d = rows.shape
    for i in range(n):
        if old[i] >= 0:
            for k in range(d):
                sums[old[i], k] -= np.float64(rows[i, k])
        for k in range(d):
            sums[new[i], k] += np.float64(rows[i, k])


def _squares(space: Euclidean, nearest: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(N,) float64 squared distance to the own center, from differences: duplicates of a center are at 0."""
    rough, _ = blocks.alone(lambda: _rough(centers))

    def work(start: int, stop: int) -> np.ndarray:
        own = rough[torch.from_numpy(nearest[start:stop])]
        block = blocks.float_rows(space.x, start, stop, space.shift)
        return (block - own).square_().sum(1).double().numpy()

    return np.concatenate(blocks.map_blocks(work, space.count, space.rows))


def _fill_empty(space: Euclidean, nearest: np.ndarray, centers: np.ndarray) -> list[tuple[int, int]]:
    """Give each empty cluster the row farthest from its center, in place; (cluster, row) of each move.

    Rows alone in their cluster stay.
    """
    sizes = np.bincount(nearest, minlength=len(centers))
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return []
    moves = []
    farthest = iter(np.argsort(-_squares(space, nearest, centers), kind="stable").tolist())
    for cluster in empty.tolist():
        row = next(row for row in farthest if sizes[nearest[row]] > 1)
        sizes[nearest[row]] -= 1
        nearest[row] = cluster
        moves.append((cluster, row))
    return moves
