"""Passes over one matrix, shared: whatever waits while a pass runs goes over the rows together in the next one.

A block of rows is read and converted once for all, and the products that they ask for are one wide product. An answer
has the same bits whatever it was fused with: blocks are fixed, and a product's column does not depend on the other
columns, which is checked on the machine for every shape that is used; where it does not hold, each request gets a
product of its own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from ray_al.kernels import blocks, distances, products
from ray_al.kernels.block import Block
from ray_al.kernels.budget import Budget
from ray_al.kernels.fuser import Fuser, Observe
from ray_al.kernels.halves import loadable
from ray_al.kernels.products import PANEL, columns_are_stable, half_scratch, multiply, scratch, widened

R = TypeVar("R")

HALVES_BYTES = Budget(1 << 29)  # of matrices once more in bfloat16; beyond them rows are converted in every pass
_NOTHING = torch.empty(0)
_SOON = 16  # rough passes before it does: a selection has a few

Work = Callable[[Block, torch.Tensor], R]


@dataclass
class _Request:
    work: Work[Any]
    columns: torch.Tensor | None  # (c, d)
    rough: bool
    results: list[Any] = field(default_factory=list)
    error: Exception | None = None


class Rows:
    """A matrix x (N, d), or a shard of it, read in fixed blocks; calls of several threads are fused.

    `shard` (i, n) is the i-th of n parts of the blocks: passes go over these rows alone, rows `start` to `stop`. Blocks
    are those of the whole matrix, so the parts' answers joined have the bits of the whole's. `name` is for messages.

    Raises:
        ValueError: x is no numeric matrix.
    """

    def __init__(
        self, x: np.ndarray, shard: tuple[int, int] = (0, 1), observe: Observe | None = None, name: str = "x"
    ) -> None:
        blocks.check_matrix(x)
        self.name, self._fuse = name, Fuser(observe)
        self.x, self.width = x, x.shape[1]
        self.block = blocks.block_rows(self.width)
        self._cut(len(x), *shard)
        self._direct = x.dtype == np.float32 and x.flags.c_contiguous and x.ctypes.data % 64 == 0
        self.loadable = loadable(x)
        self._constants = threading.Lock()
        self._shift: np.ndarray | None = None
        self._half: torch.Tensor | None = None
        self._halving, self._rough_passes = False, 0
        self.block_norms: dict[int, np.ndarray] = {}  # `Block.norms`, by the start of a block

    def _cut(self, count: int, part: int = 0, parts: int = 1) -> None:
        """Set the numbers of rows and of blocks."""
        number = -(-count // self.block)
        self.count = count
        self.start = min(number * part // parts * self.block, count)
        self.stop = min(number * (part + 1) // parts * self.block, count)
        self._sizes = {min(self.block, count), count % self.block or self.block}  # of the blocks

    def __len__(self) -> int:
        """Rows that passes go over."""
        return self.stop - self.start

    def floats(self, start: int, stop: int) -> torch.Tensor:
        """(n, d) float32 rows, fit for products."""
        if self._direct:  # rows need no conversion
            return blocks.borrow(self.x[start:stop])
        return blocks.float_rows(self.x, start, stop, out=scratch("raw", stop - start, self.width))

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where rows `ids` (n,) are in `x`."""
        return ids

    def at(self, ids: np.ndarray) -> np.ndarray:
        """Rows `ids`, copied."""
        return self.x[self.places(ids)]

    def found(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Memory of `halves.loadable`, valid until this thread's next call, and the places (n,) there of rows `ids`."""
        if self.loadable is not None:
            return self.loadable, self.places(ids)
        out = scratch("found", len(ids), self.width)
        return blocks.float_rows(self.at(ids), 0, len(ids), out=out).numpy(), np.arange(len(ids))

    @property
    def shift(self) -> np.ndarray:
        """(d,) float32 to move rows by: distances do not change, and their rounding becomes small."""
        with self._constants:
            if self._shift is None:
                self._shift = distances.center(self.x)
            return self._shift

    @property
    def fuses(self) -> bool:
        """Whether this machine's products allow fusing: a column has the same bits alone and among others."""
        return all(columns_are_stable(self.width, rows) for rows in self._sizes)

    def norms(self) -> np.ndarray:
        """(stop - start,) float32 squared norms of the shifted rows.

        Raises:
            ValueError: a row is not finite, or too large for squared distances.
        """
        found = self.sweep(lambda block, _: block.norms[0])
        return np.concatenate([np.empty(0, np.float32), *found])

    def _keep_half(self) -> None:
        """Keep the rows in bfloat16 once it is clear that they are asked about again and again."""
        size = 2 * len(self) * self.width
        with self._constants:
            self._rough_passes += 1
            if self._halving or self._rough_passes <= _SOON or not HALVES_BYTES.take(size):
                return
            self._halving = True
        # Passes that come meanwhile do without.
        try:
            half = torch.empty((len(self), self.width), dtype=torch.bfloat16)
            self.sweep(lambda block, _: block.halved(half[block.start - self.start : block.stop - self.start]))
        except BaseException:
            HALVES_BYTES.give(size)
            self._halving = False
            raise
        self._half = half
        weakref.finalize(self, HALVES_BYTES.give, size)

    def sweep(self, work: Work[R], columns: torch.Tensor | None = None, rough: bool = False) -> list[R]:
        """[work(block, product)] over all blocks, in order; product (c, n) is columns (c, d) times the rows.

        Called from several threads at once, their passes become one. `work` runs in a kernel thread; the block and the
        product are its own only until it returns. What it raises is raised here, and disturbs no other request.

        A `rough` product, of shifted rows, has errors of up to `products.errors(width)`: it may be worked in bfloat16,
        and its bits depend on what it was fused with.
        """
        if not len(self):
            return []
        if rough and products.HALVES:
            self._keep_half()
        request = _Request(work, columns, rough)
        self._fuse(None, request, self._pass, len(self) * self.width * self.x.itemsize)
        if request.error is not None:
            raise request.error
        return request.results

    def _pass(self, batch: Sequence[_Request]) -> Sequence[_Request]:
        groups = _groups(batch, len(batch) > 1 and self.fuses)

        def work(start: int) -> list[Any]:
            block = Block(self, start, min(start + self.block, self.stop))
            found: list[Any] = []
            for group in groups:
                product = group.product(block)
                found += [_attempt(r, block, product if at is None else product[at]) for r, at in group.members]
            return found

        results = blocks.run(work, range(self.start, self.stop, self.block))
        order = [request for group in groups for request, _ in group.members]
        for request, parts in zip(order, zip(*results, strict=True), strict=True):
            request.results = list(parts)
        return batch


def _attempt(request: _Request, block: Block, product: torch.Tensor) -> Any:
    if request.error is None:
        try:
            return request.work(block, product)
        except Exception as error:
            request.error = error
    return None


@dataclass(frozen=True)
class _Group:
    """Requests whose columns are multiplied together."""

    columns: torch.Tensor | None  # (P, d), bfloat16 where the product is worked in it
    rough: bool
    members: Sequence[tuple[_Request, slice | None]]

    def product(self, block: Block) -> torch.Tensor:
        if self.columns is None:
            return _NOTHING
        if self.columns.dtype == torch.bfloat16:
            out = scratch("product", len(self.columns), block.stop - block.start)
            product = half_scratch("half product", *out.shape)
            return out.copy_(torch.mm(self.columns, block.half.T, out=product))
        return multiply(self.columns, block.shifted if self.rough else block.raw, room="product")


def _groups(batch: Sequence[_Request], stable: bool) -> list[_Group]:
    groups = [_Group(None, False, [(request, None)]) for request in batch if request.columns is None]
    for rough in (False, True):
        panel: list[_Request] = []
        for request in batch:
            if request.columns is None or request.rough != rough:
                continue
            total = sum(len(r.columns) for r in panel if r.columns is not None) + len(request.columns)
            if panel and (total > PANEL or not (stable or rough)):
                groups.append(_panel(panel, rough))
                panel = []
            panel.append(request)
        if panel:
            groups.append(_panel(panel, rough))
    return groups


def _panel(requests: Sequence[_Request], rough: bool) -> _Group:
    parts = [request.columns for request in requests if request.columns is not None]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    starts = [0, *ends[:-1]]
    members = [(r, slice(a, b)) for r, a, b in zip(requests, starts, ends, strict=True)]
    return _Group(widened(parts, rough and products.HALVES), rough, members)
