"""Label propagation on one device: exact kNN graph, weights, conjugate gradients, pseudo-labels; all by torch.

The same mathematics as `kernels.neighbors`, `affinity`, `label_propagation` and `pseudo_labels`, whose answers it gives
up to rounding. Sums run over fixed ranges in a fixed order: the same device gives the same bits again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GRAPHS = ("union", "reciprocal")  # those of `kernels.affinity`, which loads the compiler
_SCORES = 1 << 28  # bytes of cosines at once
_EDGES = 1 << 31  # bytes of an edge-by-column product at once


@dataclass(frozen=True)
class DeviceAffinity:
    """W = D^-1/2 A D^-1/2 (N, N) in compressed rows."""

    starts: torch.Tensor  # (N + 1,) int64
    columns: torch.Tensor  # (E,) int64
    values: torch.Tensor  # (E,) float64

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """W x for x (N, c) float64."""
        return _row_sums(self.values[:, None] * x[self.columns], self.starts)


def nearest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows of largest cosine to each row of x (N, d), rows of length 1, itself left out by id: ids and cosines.

    Both (N, k), largest first. Equal cosines stand in any order.
    """
    count = len(x)
    if not 1 <= k < count:
        raise ValueError(f"k is {k}, but it must lie in 1..{count - 1}")
    if not torch.isfinite(x).all():
        raise ValueError("x is not finite")
    ids = torch.empty((count, k), dtype=torch.int64, device=x.device)
    cosines = torch.empty((count, k), dtype=torch.float32, device=x.device)
    step = max(1, _SCORES // (4 * count))
    for start in range(0, count, step):
        scores = x[start : start + step] @ x.T
        own = torch.arange(len(scores), device=x.device)
        scores[own, own + start] = -torch.inf
        cosines[start : start + step], ids[start : start + step] = scores.topk(k)
    return ids, cosines


def affinity(ids: torch.Tensor, cosines: torch.Tensor, gamma: float = 3.0, graph: str = "union") -> DeviceAffinity:
    """As `kernels.affinity.affinity`, of cosines instead of distances."""
    if graph not in GRAPHS:
        raise ValueError(f"unknown graph {graph!r}; known: {', '.join(GRAPHS)}")
    count, k = ids.shape
    rows = torch.arange(count, device=ids.device).repeat_interleave(k)
    columns, weights = ids.reshape(-1), cosines.reshape(-1).double().clamp(min=0) ** gamma
    # Every edge in both directions; those of mutual neighbors then come twice, side by side.
    keys, order = torch.cat([rows * count + columns, columns * count + rows]).sort()
    weights = weights.repeat(2)[order]
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    twin = torch.zeros_like(weights)
    twin[:-1] = torch.where(first[1:], 0.0, weights[1:])
    # Of a mutual pair both cosines are one number, up to rounding.
    mutual = torch.cat([~first[1:], first.new_zeros(1)])
    sums = weights + twin if graph == "union" else (weights + twin) / 2
    kept = first & (sums > 0) & (mutual if graph == "reciprocal" else first)
    keys, sums = keys[kept], sums[kept]
    rows, columns = keys // count, keys % count
    starts = torch.searchsorted(rows, torch.arange(count + 1, device=ids.device))
    degrees = _row_sums(sums[:, None], starts)[:, 0]
    roots = torch.where(degrees > 0, degrees.rsqrt(), 0.0)
    return DeviceAffinity(starts, columns, sums * roots[rows] * roots[columns])


def solve(
    weights: DeviceAffinity, y: torch.Tensor, alpha: float, tol: float = 1e-6, iterations: int = 20
) -> torch.Tensor:
    """Z (N, c) float64 of (I - alpha W) Z = Y: conjugate gradients from zero, all columns at once, without a look
    from the host. A column rests when its residual is at most `tol` times |y|, or after `iterations`.
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha is {alpha}, but it must be at least 0 and below 1")
    width = max(1, _EDGES // (8 * max(len(weights.columns), 1)))
    parts = [_solve(weights, part, alpha, tol, iterations) for part in y.double().split(width, dim=1)]
    return torch.cat(parts, dim=1)


def _solve(weights: DeviceAffinity, y: torch.Tensor, alpha: float, tol: float, iterations: int) -> torch.Tensor:
    z, residual, direction = torch.zeros_like(y), y.clone(), y.clone()
    squares = residual.square().sum(0)
    enough = tol**2 * squares
    for _ in range(iterations):
        active = squares > enough
        product = direction - alpha * weights.times(direction)
        step = torch.where(active, squares / (direction * product).sum(0), 0.0)
        z += step * direction
        residual -= step * product
        left = residual.square().sum(0)
        turn = torch.where(active, left / squares, 0.0)
        direction = torch.where(active, residual + turn * direction, direction)
        squares = torch.where(active, left, squares)
    return z


def sources(ids: torch.Tensor, labels: torch.Tensor, count: int, classes: int, balanced: bool = True) -> torch.Tensor:
    """Y (N, C) float64, as `kernels.pseudo_labels.label_sources` describes it."""
    y = torch.zeros((count, classes), dtype=torch.float64, device=ids.device)
    y[ids, labels] = 1.0
    return y / y.sum(0).clamp(min=1) if balanced else y


def pseudo_labels(z: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) int64 labels and (N,) float32 certainties, as `kernels.pseudo_labels.pseudo_labels` gives them."""
    part = z.clamp(min=0)
    total = part.sum(1, keepdim=True)
    part = part / torch.where(total > 0, total, 1.0)
    entropy = -torch.special.xlogy(part, part).sum(1)
    classes = z.shape[1]
    sure = (
        1 - entropy / torch.tensor(float(classes), device=z.device).log() if classes > 1 else torch.ones_like(entropy)
    )
    sure = torch.where(total[:, 0] > 0, sure.clamp(0, 1), 0.0)
    largest = sure.max()
    sure = torch.where(largest > 0, sure / largest, sure)
    best = part.argmax(1)
    best[ids], sure[ids] = labels, 1.0
    return best, sure.float()


def _row_sums(values: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """(N, c) sums of values (E, c) over the ranges that starts (N + 1,) bounds; 0 of an empty range."""
    return torch.segment_reduce(values, "sum", offsets=starts, axis=0, initial=0.0, unsafe=True)
