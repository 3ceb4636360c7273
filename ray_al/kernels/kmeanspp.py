"""k-means++ sampling: every pick is drawn with probability proportional to its squared distance to the nearest pick."""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.coverage import Coverage, RowCoverage
from ray_al.kernels.geometry import Geometry, GradientEmbedding, ProbRows
from ray_al.kernels.passes import Rows

_PROPOSALS = 256


def badge(
    embedding: np.ndarray | Rows,
    probs: np.ndarray | ProbRows,
    k: int,
    exclude: np.ndarray,
    seed: int,
    first: str = "norm",
) -> tuple[np.ndarray, np.ndarray]:
    """BADGE (Ash et al. 2020, https://arxiv.org/abs/1906.03671): k-means++ over gradient embeddings, factorized.

    The embedding of an item is (p - onehot(argmax p)) outer h, C*D numbers that are never made.

    Args:
        embedding: (N, D) input h of the last layer; float32, float16 or uint8.
        probs: (N, C), or a function that gives rows [start, stop) so that N x C need not exist. It is called from
            several threads, several times for the same block of rows, and must give it the same values each time.
        exclude: ids that may not be picked.
        first: "norm" picks the longest embedding first, as the authors' code does; "uniform" draws it.

    Returns:
        ids (k,) int64 in order of picking, and the squared distance (k,) float64 of each to its nearest pick when it
        was picked; inf for the first. When all distances are 0 the rest is drawn uniformly.

    Raises:
        ValueError: input is not finite, an id does not exist, or fewer than k items can be picked.
    """
    space = GradientEmbedding(embedding, probs)
    free = blocks.free_mask(space.count, k, blocks.check_ids(exclude, space.count, "exclude"))
    return draw_badge(RowCoverage(space, free, seed), k, seed, first)


def draw_badge(coverage: Coverage, k: int, seed: int, first: str) -> tuple[np.ndarray, np.ndarray]:
    """`badge` over a coverage that knows of no picks yet."""
    if first not in ("norm", "uniform"):
        raise ValueError(f"first is 'norm' or 'uniform', got {first!r}")
    start = coverage.longest()[1] if first == "norm" else coverage.rest()
    return draw(coverage, k, start, np.random.default_rng(seed))


def sample(
    space: Geometry, free: np.ndarray, k: int, start: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`draw` among the free (N,) bool items of a geometry."""
    return draw(RowCoverage(space, free, 0), k, start, rng)


def draw(coverage: Coverage, k: int, start: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw k items by k-means++, the first uniformly from `start`: ids (k,) and squared distances (k,).

    The distribution is exact, by rejection: proposals are drawn from the distances of the last full pass and accepted
    with probability true / proposed distance. True distances need only the proposals' own pairs, since every pick
    since that pass is one of them; the picks of a whole batch then enter the next pass as one matrix product.
    """
    ids = np.empty(k, np.int64)
    squares = np.full(k, np.inf)
    if k == 0:
        return ids, squares
    ids[0] = rng.choice(start)
    done, passed = 1, 0
    while done < k:
        coverage.cover(ids[passed:done])
        passed = done
        totals = np.cumsum(coverage.totals())
        if totals[-1] == 0:
            ids[done:], squares[done:] = rng.choice(coverage.rest(), k - done, replace=False), 0
            break
        proposals, proposed = _propose(coverage, totals, rng)
        accepted, distances = _accept(coverage.pairs(proposals), proposed, proposals, k - done, rng)
        ids[done : done + len(accepted)], squares[done : done + len(accepted)] = accepted, distances
        done += len(accepted)
    return ids, squares


def _propose(coverage: Coverage, totals: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ids drawn with replacement in proportion to squared distance, and these: first a block, then a row of it."""
    block = np.searchsorted(totals, rng.random(_PROPOSALS) * totals[-1], side="right")
    # Rounding may carry u * total up to the total itself: the last block of positive weight.
    block = np.minimum(block, np.searchsorted(totals, totals[-1], side="left"))
    return coverage.locate(block, rng.random(_PROPOSALS))


def _accept(
    table: np.ndarray, proposed: np.ndarray, ids: np.ndarray, k: int, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Go through the proposals in order; the first is always accepted, later ones by what is left of their distance."""
    left = proposed.copy()
    bars = rng.random(len(ids)) * proposed
    accepted: list[int] = []
    distances: list[float] = []
    for row in range(len(ids)):
        if bars[row] < left[row] and len(accepted) < k:
            accepted.append(int(ids[row]))
            distances.append(float(left[row]))
            left = np.minimum(left, table[row])
            left[ids == ids[row]] = 0
    return accepted, distances
