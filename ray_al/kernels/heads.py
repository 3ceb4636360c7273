"""Lower bounds of squared distances from a few principal directions of the rows: most pairs need no more.

Let h(x) be the p coordinates of a row along the rows' first principal directions and r(x) the length of what is left.
Then |x - y|^2 >= |a(x) - a(y)|^2 with a = (h, r), and the bound costs a product of p + 1 instead of d numbers. On image
embeddings a quarter of the directions leaves one pair in a hundred whose distance must be worked out.

Where the processor has it, the product is made in bfloat16, in which a becomes b, e = |a - b| away. A row's factors
are (b, 1, 1, 1, |a|, e), and a point's (b', -|a'|^2 / 2 in three parts, e', |b'|). Their product is at least
a a' - |a'|^2 / 2, since a a' <= b b' + |a| e' + e |b'|: one comparison with a number of the row's own rules a pair out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks, products
from ray_al.kernels.distances import TINY, noise

SAMPLE = 2048  # rows from which directions are taken, and costs estimated
BYTES = 2**31  # that the factors of all rows may take
GROUP = 32  # products are filled up to multiples of it: whole vectors of 16-bit numbers, as wide as there are any
ROUNDING = 1.05 * 2.0**-8  # of a bfloat16, relative to it
FEW = 64  # with fewer points bounds save nothing
_TRIED = 256
_STEP, _MOST = 16, 128
_PARTS = 3  # bfloat16 that together have the digits of a float32
MORE = 1 + _PARTS + 2  # columns besides the head
_WASTE = {torch.float32: 8, torch.bfloat16: 32}  # numbers of a product as costly as one of a distance worked out


class RowFactors(NamedTuple):
    """What bounds need of rows."""

    factors: torch.Tensor  # (n, w)
    base: np.ndarray  # (n,) float32
    rest: np.ndarray  # (n,) float32 length of what is not in the head
    error: np.ndarray  # (n,) float32 by which rounding may have changed it

    def sure(self, points: PointFactors) -> np.ndarray:
        """(n,) float32 from which `bars` are made: base less what rounding may do to rests."""
        found: np.ndarray = self.base - 2 * (self.error * points.longest + points.error * self.rest)
        return found


def bars(sure: np.ndarray, squares: np.ndarray, rounding: np.float32) -> np.ndarray:
    """What a row's product with a point is at least, if their squared distance is at most `squares`."""
    bar = (sure - squares) * np.float32(0.5)
    found: np.ndarray = bar - rounding * np.abs(bar)
    return found


class PointFactors(NamedTuple):
    """What bounds need of points, from which distances are asked."""

    factors: torch.Tensor  # (k, w), k rounded up to whole groups
    longest: np.float32  # largest length of what is not in the heads
    error: np.float32  # by which rounding may have changed one
    rounding: np.float32  # of products, relative to them


def kind() -> torch.dtype:
    """Of the factors."""
    return torch.bfloat16 if products.HALVES else torch.float32


def of_rows(rows: torch.Tensor, directions: torch.Tensor | None, dtype: torch.dtype) -> RowFactors:
    """Of shifted rows (n, d) float32; all is head without directions."""
    own, square, rest, error = _split(rows, directions)
    near, length, off = _rounded(own, dtype)
    ones = torch.ones((len(rows), _PARTS), dtype=dtype)
    factors = torch.cat([near, ones, length, off], 1)
    return RowFactors(factors, (square - 2 * error * rest).numpy(), rest.numpy(), error.numpy())


def of_points(points: torch.Tensor, directions: torch.Tensor | None, dtype: torch.dtype) -> PointFactors:
    own, square, rest, error = _split(points, directions)
    near, length, off = _rounded(own, dtype)
    left, parts = error * rest - square / 2, []
    for _ in range(_PARTS):
        parts.append(left.to(dtype)[:, None])
        left = left - parts[-1][:, 0].float()
    factors = torch.zeros((-(-len(points) // GROUP) * GROUP, near.shape[1] + _PARTS + 2), dtype=dtype)
    factors[len(points) :, near.shape[1]] = -torch.finfo(dtype).max / 4  # added to fill a group: ruled out always
    factors[: len(points)] = torch.cat([near, *parts, off, length], 1)
    rounding = np.float32(ROUNDING if dtype == torch.bfloat16 else 0)
    return PointFactors(factors, rest.numpy().max(), error.numpy().max(), rounding)


def _split(rows: torch.Tensor, directions: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Rows a (n, p + 1), their squared lengths (n,) less what rounding may do to a bound, r (n,) and its error (n,)."""
    norms = rows.square().sum(1)
    unsure = norms * noise(rows.shape[1]) + 4 * rows.shape[1] * TINY
    if directions is None:
        nothing = torch.zeros(len(rows))
        return rows, norms - 6 * unsure, nothing, nothing
    head = products.multiply(rows, directions.T.contiguous())
    rest = (norms - head.square().sum(1)).clamp_(min=0).sqrt_()
    error = unsure / torch.maximum(rest, unsure.sqrt())  # next to nothing where rest is long
    own = torch.cat([head, rest[:, None]], 1)
    return own, own.square().sum(1) - 6 * unsure, rest, error


def _rounded(own: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows in another type, and columns (n, 1), no less than the lengths of the rows and of what rounding took."""
    near = own.to(dtype)
    if dtype == own.dtype:
        nothing = torch.zeros((len(own), 1))
        return near, nothing, nothing
    up = 1 + 2.0**-7
    length, off = own.norm(dim=1, keepdim=True) * up, (own - near.float()).norm(dim=1, keepdim=True) * up
    return near, length.to(dtype), off.to(dtype)


def choose(sample: torch.Tensor, count: int, points: torch.Tensor) -> torch.Tensor | None:
    """Directions (d, p) for `count` rows, or None where bounds would save nothing.

    Args:
        sample: (s, d) float32 of the rows, shifted.
        points: (k, d) to which distances are asked for.
    """
    width, dtype = sample.shape[1], kind()
    most = min(width // 2, len(sample) // 4, _MOST, BYTES // (dtype.itemsize * count) - MORE) // _STEP * _STEP
    if most < _STEP:
        return None
    directions = _principal(sample, most)
    tried = sample[:: -(-len(sample) // _TRIED)]
    least = torch.cdist(tried, points).square().amin(1).numpy()
    best, lowest = None, float(width * len(points))
    for size in range(_STEP, most + 1, _STEP):
        some = directions[:, :size].contiguous()
        rows, others = of_rows(tried, some, dtype), of_points(points, some, dtype)
        least_products = torch.from_numpy(bars(rows.sure(others), least, others.rounding))[:, None]
        left = float((products.multiply(rows.factors, others.factors) >= least_products).sum()) / len(tried)
        cost = size * len(points) + _WASTE[dtype] * left * width
        if cost < lowest:
            best, lowest = some, cost
    return best


def _principal(sample: torch.Tensor, count: int) -> torch.Tensor:
    """(d, count) orthonormal, close to the first principal directions: three rounds of subspace iteration."""
    basis = torch.randn((sample.shape[1], count), generator=torch.Generator().manual_seed(0))
    sample = sample / sample.abs().max().clamp(min=TINY)  # the products below are of the fourth power
    for _ in range(3):
        basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
    scores = sample @ basis
    return basis @ torch.linalg.eigh(scores.T @ scores)[1].flip(1)


def sample_rows(x: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """(s, d) float32 of rows spread over x, shifted."""
    at = np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).astype(np.int64)
    return blocks.float_rows(x[at], 0, len(at), shift)
