"""k-means on one device: k-means++ seeding, then Lloyd's iterations by matrix products; all by torch."""

from __future__ import annotations

import numpy as np
import torch

_BYTES = 1 << 29  # of a row-by-center product at once


def kmeans(x: torch.Tensor, clusters: int, seed: int, max_iter: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """k-means (Lloyd 1982; seeding of Arthur & Vassilvitskii 2007), Euclidean, for `max_iter` rounds or until no row
    changes its cluster. A cluster that has lost all its rows takes the row farthest from its own center, of those that
    are not alone in theirs. No atomic sums: the same device gives the same bits again.

    Returns:
        assignment (N,) int64, none of the clusters empty, and centers (clusters, d), the means of their rows.

    Raises:
        ValueError: x is not finite, or there are not between 1 and N clusters.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(f"clusters is {clusters}, but it must lie in 1..{len(x)}")
    if not torch.isfinite(x).all():
        raise ValueError("x is not finite")
    norms = x.square().sum(1)
    centers = x[_seeds(x, norms, clusters, np.random.default_rng(seed))]
    nearest = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    for _ in range(max_iter):
        before = nearest
        nearest, squares = _assign(x, norms, centers)
        nearest = _fill_empty(nearest, squares, clusters)
        if torch.equal(nearest, before):
            break
        centers = _means(x, nearest, clusters)
    return nearest, centers


def _seeds(x: torch.Tensor, norms: torch.Tensor, clusters: int, rng: np.random.Generator) -> torch.Tensor:
    """(clusters,) distinct rows: the first uniform, each next with probability by its squared distance to them."""
    chosen = [int(rng.integers(len(x)))]
    squares = torch.full_like(norms, torch.inf)
    taken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for draw in rng.random(clusters - 1):
        taken[chosen[-1]] = True
        own = (norms - 2 * (x @ x[chosen[-1]]) + norms[chosen[-1]]).clamp_(min=0)
        squares = torch.where(taken, 0.0, torch.minimum(squares, own))
        ends = np.cumsum(squares.double().cpu().numpy())  # on the host: sums in one order
        if ends[-1] > 0:
            row = int(np.searchsorted(ends, draw * ends[-1], side="right"))
        else:  # all others are duplicates of rows that were chosen
            row = int(torch.nonzero(~taken)[0])
        chosen.append(min(row, len(x) - 1))
    return torch.tensor(chosen, device=x.device)


def _assign(x: torch.Tensor, norms: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest center of every row, and its squared distance."""
    own = centers.square().sum(1)
    parts = []
    step = max(1, _BYTES // (4 * len(centers)))
    for start in range(0, len(x), step):
        parts.append((own - 2 * (x[start : start + step] @ centers.T)).min(1))
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]) + norms


def _means(x: torch.Tensor, nearest: torch.Tensor, clusters: int) -> torch.Tensor:
    sums = torch.zeros((clusters, x.shape[1]), dtype=x.dtype, device=x.device)
    step = max(1, _BYTES // (4 * clusters))
    for start in range(0, len(x), step):
        member = torch.nn.functional.one_hot(nearest[start : start + step], clusters).to(x.dtype)
        sums += member.T @ x[start : start + step]
    return sums / torch.bincount(nearest, minlength=clusters).to(x.dtype)[:, None]


def _fill_empty(nearest: torch.Tensor, squares: torch.Tensor, clusters: int) -> torch.Tensor:
    sizes = torch.bincount(nearest, minlength=clusters).cpu()
    empty = torch.nonzero(sizes == 0).flatten().tolist()
    if not empty:
        return nearest
    nearest = nearest.clone()
    farthest = iter(squares.argsort(descending=True, stable=True).tolist())
    for cluster in empty:
        row = next(row for row in farthest if sizes[nearest[row]] > 1)
        sizes[nearest[row]] -= 1
        nearest[row] = cluster
    return nearest
