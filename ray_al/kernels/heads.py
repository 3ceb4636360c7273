"""Lower bounds of squared distances from a few principal directions of the rows: most pairs need no more.

Let h(x) be the p coordinates of a row along the rows' first principal directions and r(x) the length of what is left.
Then |x - y|^2 >= |h(x) - h(y)|^2 + (r(x) - r(y))^2, and the bound costs a product of p instead of d numbers. On image
embeddings an eighth of the directions leaves a few pairs in a hundred whose distance must be worked out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.compiled import sums
from ray_al.kernels.distances import TINY, noise

SAMPLE = 2048  # rows from which directions are taken, and costs estimated
BYTES = 2**31  # that the coordinates of all rows may take
_TRIED, _POINTS = 256, 64
_STEP, _MOST = 16, 128
_WASTE = 8  # a number of a distance that is worked out costs as much as that many of a product


class Split(NamedTuple):
    """Rows (or points) in two parts."""

    head: torch.Tensor  # (n, p) float32
    low: np.ndarray  # (n,) float32 squared length of the head, less what rounding may do to a bound
    rest: np.ndarray  # (n,) float32 length of what is left
    error: np.ndarray  # (n,) float32 by which rounding may have changed it


def split(rows: torch.Tensor, directions: torch.Tensor | None) -> Split:
    """Shifted rows (n, d) in two parts; all is head without directions."""
    norms = rows.square().sum(1)
    relative, least = noise(rows.shape[1]), 4 * rows.shape[1] * TINY
    if directions is None:
        nothing = np.zeros(len(rows), np.float32)
        return Split(rows, (norms * (1 - 4 * relative) - least).numpy(), nothing, nothing)
    head = rows @ directions
    squares = head.square().sum(1)
    rest = (norms - squares).clamp_(min=0).sqrt_()
    unsure = norms * relative + least  # of rest squared: next to nothing where rest is long, else all of it
    error = unsure / (rest + unsure.sqrt())
    return Split(head, (squares - 4 * unsure).numpy(), rest.numpy(), error.numpy())


def choose(sample: torch.Tensor, count: int, points: torch.Tensor | None = None) -> torch.Tensor | None:
    """Directions (d, p) for `count` rows, or None where bounds would save nothing.

    Args:
        sample: (s, d) float32 of the rows, shifted.
        points: (k, d) to which distances are asked for; rows of the sample by default.
    """
    width = sample.shape[1]
    most = min(width // 4, len(sample) // 4, _MOST, BYTES // (4 * count)) // _STEP * _STEP
    if most < _STEP or (points is not None and len(points) < _POINTS):
        return None
    directions = _principal(sample, most)
    tried = sample[:: -(-len(sample) // _TRIED)]
    if points is None:
        points = sample[1 :: -(-len(sample) // _POINTS)]  # none of those tried, whose distance to itself is 0
    least = torch.cdist(tried, points).square().amin(1, keepdim=True)
    best, lowest = None, float(width * len(points))
    for size in range(_STEP, most + 1, _STEP):
        left = float((_bounds(tried, points, directions[:, :size]) <= least).sum()) / len(tried)
        cost = size * len(points) + _WASTE * left * width
        if cost < lowest:
            best, lowest = directions[:, :size].contiguous(), cost
    return best


def _principal(sample: torch.Tensor, count: int) -> torch.Tensor:
    """(d, count) orthonormal, close to the first principal directions: three rounds of subspace iteration."""
    basis = torch.randn((sample.shape[1], count), generator=torch.Generator().manual_seed(0))
    sample = sample / sample.abs().max().clamp(min=TINY)  # the products below are of the fourth power
    for _ in range(3):
        basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
    scores = sample @ basis
    return basis @ torch.linalg.eigh(scores.T @ scores)[1].flip(1)


def _bounds(rows: torch.Tensor, points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    one, other = split(rows, directions), split(points, directions)
    gap = torch.from_numpy(one.rest)[:, None] - torch.from_numpy(other.rest)
    return torch.cdist(one.head, other.head).square() + gap.square()


def sample_rows(x: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """(s, d) float32 of rows spread over x, shifted."""
    at = np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).astype(np.int64)
    return blocks.float_rows(x[at], 0, len(at), shift)


@sums
def square(x: np.ndarray, y: np.ndarray) -> np.float32:
    """|x - y|^2 from differences: 0 for equal rows. Its bits depend on the two rows alone."""
    total = np.float32(0.0)
    for k in range(len(x)):
        total += (x[k] - y[k]) * (x[k] - y[k])
    return total
