"""Squared distances from every row to a few picked rows, right for duplicates and close points too.

A product of shifted rows, rough where the processor is faster at that, bounds each distance from below. The few that
may be a minimum are worked from the differences of the two rows in float64. What a pair gives there depends on that
pair alone, so neither the order of the picks nor how they are grouped changes a minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ray_al.kernels import blocks, distances, outer_distances, products
from ray_al.kernels.passes import Block, Rows
from ray_al.kernels.products import PANEL, widened
from ray_al.kernels.tiles import in_tiles

_PARTS = 8  # of a table of pairs

ProbRows = Callable[[int, int], np.ndarray]


class Geometry(Protocol):
    """Rows among which points are picked by their distances. It owns rows `start` to `stop` of `count`."""

    start: int
    stop: int
    count: int
    rows: int  # of a block

    @property
    def norms(self) -> np.ndarray:
        """(stop - start,) float32, squared."""
        ...

    def cover(self, best: np.ndarray, ids: np.ndarray) -> None:
        """Set best (stop - start,) float64 to min(best, squared distance to the nearest row of `ids`), in place."""
        ...

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        """(m, m) float64 squared distances between rows `ids`."""
        ...


class Euclidean:
    """Rows of x (N, d), Euclidean."""

    def __init__(self, x: np.ndarray | Rows) -> None:
        self.matrix = x if isinstance(x, Rows) else Rows(x)
        self.x, self.count, self.rows = self.matrix.x, self.matrix.count, self.matrix.block
        self.start, self.stop = self.matrix.start, self.matrix.stop
        self.shift = self.matrix.shift

    @property
    def norms(self) -> np.ndarray:
        return self.matrix.norms()

    def check(self) -> None:
        """Raise ValueError if a row is not finite, or too large for squared distances; a pass would do so, too."""
        self.matrix.norms()

    def cover(self, best: np.ndarray, ids: np.ndarray) -> None:
        if not len(ids):
            self.check()
        for begin in range(0, len(ids), PANEL):
            self._cover(best, ids[begin : begin + PANEL])

    def _cover(self, best: np.ndarray, ids: np.ndarray) -> None:
        raw = _few_rows(self.matrix.at(ids))
        moved = _moved(raw, self.shift)
        norms = distances.square_norms(moved)
        sure, lengths, errors = _sure(norms, self.matrix.width), np.sqrt(norms), products.errors(self.matrix.width)

        def work(block: Block, product: torch.Tensor) -> None:
            at = slice(block.start - self.start, block.stop - self.start)
            own, table = block.norms[0], product.numpy()
            least, nearest = np.empty(len(own), np.float32), np.empty(len(own), np.int32)
            own_sure = _sure(own, self.matrix.width)
            distances.bounds(table, own_sure, np.sqrt(own), sure, lengths, *errors, least, nearest)
            asked = np.flatnonzero(least <= best[at])
            if len(asked):
                distances.lower(table, nearest, asked, *block.some(asked), raw, best[at])

        def first(block: Block, _: torch.Tensor) -> None:
            at = slice(block.start - self.start, block.stop - self.start)
            block.check()
            distances.lower(*_all(block), *block.all(), raw, best[at])

        if _is_first(best, ids):
            self.matrix.sweep(first)
        else:
            self.matrix.sweep(work, torch.from_numpy(moved), rough=True)

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        rows = in_tiles(_few_rows(self.matrix.at(ids)))
        return _table(len(ids), lambda *part: distances.squares(rows, self.matrix.width, *part))


def _few_rows(x: np.ndarray) -> np.ndarray:
    """x (n, d) as float32, by numpy alone: to wake a kernel thread for so few rows would take longer."""
    with np.errstate(over="ignore"):  # passes refuse what is too large
        return x.astype(np.float32, order="C", copy=False)


def _moved(rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        moved: np.ndarray = rows - shift
        return moved


def _sure(norms: np.ndarray, width: int) -> np.ndarray:
    """Squared norms (n,) float32 less what rounding of `width` products may have added to them, or to a distance."""
    return norms * np.float32(1 - 2 * distances.noise(width)) - np.float32(4 * width * distances.TINY)


def _is_first(best: np.ndarray, ids: np.ndarray) -> bool:
    """Whether bounds can rule nothing out: one point, and rows that know of none."""
    return len(ids) == 1 and bool(np.isinf(best).all())


def _all(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`lower`'s table, nearest point and asked rows where all rows of a block are asked about the one point."""
    count = block.stop - block.start
    return np.empty((0, count), np.float32), np.zeros(count, np.int32), np.arange(count)


def _table(count: int, fill: Callable[[int, int, np.ndarray], None]) -> np.ndarray:
    """(count, count) of squared distances, made in parts: fill(part, parts, table)."""
    table = np.zeros((count, count))
    blocks.run(lambda part: fill(part, _PARTS, table), range(_PARTS))
    return table


class GradientEmbedding:
    """Rows q outer h (C x D), q = p - onehot(argmax p): the last layer's gradient for the predicted class, factorized.

    <q_i h_i, q_j h_j> = (q_i q_j)(h_i h_j): products of C and of D numbers stand for one of C*D.
    """

    def __init__(self, embedding: np.ndarray | Rows, probs: np.ndarray | ProbRows) -> None:
        self.matrix = embedding if isinstance(embedding, Rows) else Rows(embedding, name="embedding")
        self.h, self.count, self.rows = self.matrix.x, self.matrix.count, self.matrix.block
        self.start, self.stop = self.matrix.start, self.matrix.stop
        if isinstance(probs, np.ndarray):
            table = probs
            if table.ndim != 2 or len(table) != self.count:
                raise ValueError(f"probs {table.shape} does not fit the embedding {self.h.shape}")
            self.probs: ProbRows = lambda start, stop: table[start:stop]
            self._some_probs: Callable[[np.ndarray], np.ndarray] = lambda ids: table[ids]
        else:
            self.probs, self._some_probs = probs, self._of_blocks
        self.norms = np.concatenate([np.empty(0, np.float32), *self.matrix.sweep(self._block_norms)])

    @staticmethod
    def _residual(probs: np.ndarray) -> np.ndarray:
        if probs.ndim != 2 or not probs.shape[1]:
            raise ValueError(f"probs is a matrix (N, C) of one class or more, got {probs.shape} of some rows")
        outer_distances.subtract_largest(probs)
        return probs

    def _q(self, start: int, stop: int) -> torch.Tensor:
        """(n, C) float32 of a block."""
        probs = self.probs(start, stop)
        q = blocks.float_rows(probs, 0, len(probs))
        self._residual(q.numpy())
        return q

    def _block_norms(self, block: Block, _: torch.Tensor) -> np.ndarray:
        q = self._q(block.start, block.stop)
        if q.ndim != 2 or len(q) != block.stop - block.start:
            raise ValueError(f"probs of rows {block.start}..{block.stop - 1} has shape {tuple(q.shape)}")
        raw = block.norms[1]
        with np.errstate(all="ignore"):
            norms = q.square().sum(1).numpy() * raw
        if not max(norms.max(), raw.max()) < distances.LARGEST:
            blocks.check_finite(q, "probs", block.start)
            raise ValueError(f"embedding is too large in rows {block.start}..{block.stop - 1}: {block.raw.abs().max()}")
        return norms

    def _picked(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """q (n, C) and h (n, D), float32, of rows `ids`."""
        return self._residual(self._some_probs(ids).astype(np.float32, order="C")), _few_rows(self.h[ids])

    def _of_blocks(self, ids: np.ndarray) -> np.ndarray:
        """(n, C) probabilities of rows `ids`."""
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
        return probs

    def cover(self, best: np.ndarray, ids: np.ndarray) -> None:
        for begin in range(0, len(ids), PANEL):
            self._cover(best, ids[begin : begin + PANEL])

    def _cover(self, best: np.ndarray, ids: np.ndarray) -> None:
        picked = point_q, point_h = self._picked(ids)
        moved = _moved(point_h, self.matrix.shift)
        raw_norms, norms = distances.square_norms(point_h), distances.square_norms(moved)
        q_norms, errors = distances.square_norms(point_q), products.errors(self.matrix.width)
        columns = widened([torch.from_numpy(point_q)])
        points = self._sizes(q_norms * raw_norms, raw_norms, norms, point_q.shape[1])

        def work(block: Block, product: torch.Tensor) -> None:
            at = slice(block.start - self.start, block.stop - self.start)
            q, table = self._q(block.start, block.stop), product.numpy()
            norms, raw_norms = block.norms
            rows = self._sizes(self.norms[at], raw_norms, norms, q.shape[1])
            least, nearest = np.empty(len(q), np.float32), np.empty(len(q), np.int32)
            similar = torch.mm(columns, q.T).numpy()
            outer_distances.bounds(table, similar, rows, points, *errors, least, nearest)
            asked = np.flatnonzero(least <= best[at])
            if len(asked):
                outer_distances.lower(table, nearest, asked, q.numpy(), *block.some(asked), *picked, best[at])

        def first(block: Block, _: torch.Tensor) -> None:
            at, q = slice(block.start - self.start, block.stop - self.start), self._q(block.start, block.stop)
            outer_distances.lower(*_all(block), q.numpy(), *block.all(), *picked, best[at])

        if _is_first(best, ids):
            self.matrix.sweep(first)
        else:
            self.matrix.sweep(work, torch.from_numpy(moved), rough=True)

    def _sizes(self, both: np.ndarray, raw_norms: np.ndarray, norms: np.ndarray, classes: int) -> np.ndarray:
        """(4, n), as `outer_distances.bounds` wants them, of squared norms of q h, of h, and of shifted h."""
        width = self.matrix.width
        noise = distances.noise(width) * (raw_norms + norms) + width * distances.TINY
        # What is too small for a product of residuals is lost before their rows' lengths make it larger.
        lost = np.float32(4 * classes * distances.TINY) * np.maximum(raw_norms, 1)
        return np.stack([_sure(both, classes) - lost, (raw_norms - norms) / 2, noise, np.sqrt(norms)], dtype=np.float32)

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        q, h = map(in_tiles, self._picked(ids))
        return _table(len(ids), lambda *part: outer_distances.squares(q, h, *part))
