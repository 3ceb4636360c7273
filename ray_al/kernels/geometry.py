"""Squared distances from every row to a few picked rows, right for duplicates and close points too.

A float32 product gives |a|^2 + |p|^2 - 2ap with an error of about 1e-6 |a|^2: fine for most pairs, noise for close
ones. These are found by the result itself and worked again in float64, the closest from the difference of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ray_al.kernels import blocks

CLOSE = 1 / 64  # relative to |a|^2 + |p|^2; above it float32 leaves four correct digits or more
NOISE = 1e-5  # relative error that float32 may have made
TOUCHING = 1e-9  # below it, float64 products are noise in turn
_POINTS = 256  # picked rows worked at once
_PAIRS = 4096  # pairs worked at once from their differences

ProbRows = Callable[[int, int], np.ndarray]


class Geometry(Protocol):
    """Rows among which points are picked by their distances."""

    count: int

    def lower(self, best: np.ndarray, ids: np.ndarray) -> None:
        """Set best (N,) float64 to min(best, squared distance to the nearest row of `ids`), in place.

        Rows of negative `best` may not be picked and stay as they are.
        """
        ...

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        """(m, m) float64 squared distances between rows `ids`."""
        ...


def _lower_block(
    best: np.ndarray,
    rough: torch.Tensor,
    scale: torch.Tensor,
    exact: Callable[[np.ndarray], torch.Tensor],
) -> None:
    """Lower a block of best by rough (n,) float32 distances; exact(rows) gives those of close rows in float64."""
    fine = rough.clamp_(min=0).double().numpy()
    close = (rough < 2 * CLOSE * scale).numpy()
    if close.any():
        reachable = fine - NOISE * scale.double().numpy() < best
        rows = np.flatnonzero(close & reachable & (best > 0))
        for start in range(0, len(rows), 512):
            part = rows[start : start + 512]
            fine[part] = exact(part).numpy()
    np.minimum(best, fine, out=best, where=best > 0)


class Euclidean:
    """Rows of x (N, d), Euclidean."""

    def __init__(self, x: np.ndarray) -> None:
        blocks.check_matrix(x)
        self.x, self.count = x, len(x)
        self.rows = blocks.block_rows(x.shape[1])
        self.shift = blocks.center(x, np.arange(len(x)))  # distances do not change when all rows move
        self.norms = np.concatenate(blocks.map_blocks(self._block_norms, self.count, self.rows))  # (N,) float32

    def _block_norms(self, start: int, stop: int) -> np.ndarray:
        block = blocks.float_rows(self.x, start, stop, self.shift)
        norms = block.square().sum(1)
        if not torch.isfinite(norms.sum()):
            blocks.check_finite(block, "x", start)
            raise ValueError(f"x is too large for squared distances in rows {start}..{stop - 1}: {block.abs().max()}")
        return norms.numpy()

    def lower(self, best: np.ndarray, ids: np.ndarray) -> None:
        for start in range(0, len(ids), _POINTS):
            self._lower(best, ids[start : start + _POINTS])

    def _points(self, ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (p, d) in float64 and in float32, and their squared norms (p, 1)."""
        points = blocks.double_rows(self.x, ids, self.shift)
        rough = points.float()
        return points, rough, rough.square().sum(1, keepdim=True)

    def _lower(self, best: np.ndarray, ids: np.ndarray) -> None:
        points, rough_points, point_norms = blocks.alone(lambda: self._points(ids))

        def work(start: int, stop: int) -> None:
            block = blocks.float_rows(self.x, start, stop, self.shift)
            norms = torch.from_numpy(self.norms[start:stop])
            rough = torch.addmm(point_norms, rough_points, block.T, alpha=-2).amin(0) + norms
            _lower_block(best[start:stop], rough, norms, lambda rows: self._nearest(start + rows, points))

        blocks.map_blocks(work, self.count, self.rows)

    def _nearest(self, ids: np.ndarray, points: torch.Tensor) -> torch.Tensor:
        rows = blocks.double_rows(self.x, ids, self.shift)  # (n, d)
        norms = rows.square().sum(1)
        nearest, index = torch.addmm(points.square().sum(1), rows, points.T, alpha=-2).min(1)
        nearest += norms
        touching = nearest < TOUCHING * norms
        nearest[touching] = (rows[touching] - points[index[touching]]).square().sum(1)
        return nearest

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        return blocks.alone(lambda: self._pairs(ids))

    def _pairs(self, ids: np.ndarray) -> np.ndarray:
        rows = blocks.double_rows(self.x, ids, self.shift)
        norms = rows.square().sum(1)
        table = torch.addmm(norms, rows, rows.T, alpha=-2).add_(norms[:, None])
        for one, other in _touching_pairs(table, norms):
            table[one, other] = (rows[one] - rows[other]).square().sum(1)
        return table.numpy()


def _touching_pairs(table: torch.Tensor, scale: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows and columns, in parts, of the entries of table (m, m) too small for a product; its diagonal becomes 0."""
    table.fill_diagonal_(0)
    touching = (table < TOUCHING * scale).fill_diagonal_(False)
    rows, columns = torch.nonzero(touching, as_tuple=True)
    return list(zip(rows.split(_PAIRS), columns.split(_PAIRS), strict=True))


class GradientEmbedding:
    """Rows q outer h (C x D), q = p - onehot(argmax p): the last layer's gradient for the predicted class, factorized.

    <q_i h_i, q_j h_j> = (q_i q_j)(h_i h_j): products of C and of D numbers stand for one of C*D.
    """

    def __init__(self, embedding: np.ndarray, probs: np.ndarray | ProbRows) -> None:
        blocks.check_matrix(embedding, "embedding")
        self.h, self.count = embedding, len(embedding)
        if isinstance(probs, np.ndarray):
            table = probs
            if table.ndim != 2 or len(table) != self.count:
                raise ValueError(f"probs {table.shape} does not fit the embedding {embedding.shape}")
            self.probs: ProbRows = lambda start, stop: table[start:stop]
        else:
            self.probs = probs
        self.rows = blocks.block_rows(embedding.shape[1])
        self.norms = np.concatenate(blocks.map_blocks(self._block_norms, self.count, self.rows))  # (N,) float32

    @staticmethod
    def _residual(probs: torch.Tensor) -> torch.Tensor:
        return probs.scatter_add_(1, probs.argmax(1, keepdim=True), torch.full_like(probs[:, :1], -1))

    def _block(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """q (n, C) and h (n, D) of a block, float32."""
        probs = self.probs(start, stop)
        q = self._residual(blocks.float_rows(probs, 0, len(probs)))
        return q, blocks.float_rows(self.h, start, stop)

    def _picked(self, ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """q (n, C) and h (n, D) of rows `ids`, float64."""
        home = ids // self.rows
        used = np.unique(home)

        # Always whole blocks: a function's last bits, and with them the argmax of a tie, may depend on the range asked.
        def work(block: int) -> np.ndarray:
            start = block * self.rows
            return self.probs(start, min(start + self.rows, self.count))[ids[home == block] - start]

        parts = blocks.run(work, used.tolist())
        probs = np.empty((len(ids), parts[0].shape[1]), np.float32)
        for block, part in zip(used, parts, strict=True):
            probs[home == block] = part
        return self._residual(blocks.float_rows(probs, 0, len(probs)).double()), blocks.double_rows(self.h, ids)

    def _block_norms(self, start: int, stop: int) -> np.ndarray:
        q, h = self._block(start, stop)
        if q.ndim != 2 or len(q) != len(h):
            raise ValueError(f"probs of rows {start}..{stop - 1} has shape {tuple(q.shape)}")
        norms = q.square().sum(1) * h.square().sum(1)
        if not torch.isfinite(norms.sum()):
            blocks.check_finite(q, "probs", start)
            blocks.check_finite(h, "embedding", start)
            raise ValueError(f"embedding is too large in rows {start}..{stop - 1}: {h.abs().max()}")
        return norms.numpy()

    def lower(self, best: np.ndarray, ids: np.ndarray) -> None:
        for start in range(0, len(ids), _POINTS):
            self._lower(best, ids[start : start + _POINTS])

    @staticmethod
    def _points(q: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """-2 q (p, C) and h (p, D) in float32, and the squared norms (p, 1)."""
        norms = q.square().sum(1, keepdim=True) * h.square().sum(1, keepdim=True)
        return -2 * q.float(), h.float(), norms.float()

    def _lower(self, best: np.ndarray, ids: np.ndarray) -> None:
        point_q, point_h = self._picked(ids)
        rough_q, rough_h, norms_p = blocks.alone(lambda: self._points(point_q, point_h))

        def work(start: int, stop: int) -> None:
            q, h = self._block(start, stop)
            norms = torch.from_numpy(self.norms[start:stop])
            rough = torch.mm(rough_q, q.T).mul_(torch.mm(rough_h, h.T)).add_(norms_p).amin(0) + norms
            exact = lambda rows: self._nearest(start + rows, point_q, point_h)  # noqa: E731
            _lower_block(best[start:stop], rough, norms, exact)

        blocks.map_blocks(work, self.count, self.rows)

    def _nearest(self, ids: np.ndarray, point_q: torch.Tensor, point_h: torch.Tensor) -> torch.Tensor:
        q, h = self._picked(ids)
        norms = q.square().sum(1) * h.square().sum(1)
        norms_p = point_q.square().sum(1) * point_h.square().sum(1)
        nearest, index = (norms_p - 2 * (q @ point_q.T) * (h @ point_h.T)).min(1)
        nearest += norms
        touching = nearest < TOUCHING * norms
        at = index[touching]
        nearest[touching] = _outer_distance(q[touching], h[touching], point_q[at], point_h[at])
        return nearest

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        q, h = self._picked(ids)
        return blocks.alone(lambda: self._pairs(q, h))

    @staticmethod
    def _pairs(q: torch.Tensor, h: torch.Tensor) -> np.ndarray:
        norms = q.square().sum(1) * h.square().sum(1)
        table = (q @ q.T).mul_(h @ h.T).mul_(-2).add_(norms).add_(norms[:, None])
        for one, other in _touching_pairs(table, norms):
            table[one, other] = _outer_distance(q[one], h[one], q[other], h[other])
        return table.numpy()


def _outer_distance(q: torch.Tensor, h: torch.Tensor, other_q: torch.Tensor, other_h: torch.Tensor) -> torch.Tensor:
    """|q h - q' h'|^2 from the differences: q h - q' h' = q (h - h') + (q - q') h'; 0 for equal rows."""
    dq, dh = q - other_q, h - other_h
    both = (q * dq).sum(-1) * (dh * other_h).sum(-1)
    total = q.square().sum(-1) * dh.square().sum(-1) + dq.square().sum(-1) * other_h.square().sum(-1) + 2 * both
    return total.clamp_(min=0)
