"""k-means++ sampling: every pick is drawn with probability proportional to its squared distance to the nearest pick."""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.coverage import Coverage, RowCoverage
from ray_al.kernels.drawing import draw
from ray_al.kernels.geometry import Geometry, GradientEmbedding, ProbRows
from ray_al.kernels.passes import Rows


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
    """`draw` among the free (N,) bool items of a geometry, with a pass after every few picks: where rows are few."""
    return draw(RowCoverage(space, free, 0), k, start, rng, since=1)
