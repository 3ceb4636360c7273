"""Passes over one matrix, shared: whatever waits while a pass runs goes over the rows together in the next one.

A block of rows is read and converted once for all, and the products that they ask for are one wide product. An answer
has the same bits whatever it was fused with: blocks are fixed, and a product's column does not depend on the other
columns, which is checked on the machine for every shape that is used; where it does not hold, each request gets a
product of its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.fuser import Fuser, Observe

R = TypeVar("R")

PANEL = 192  # columns of a fused product: wider ones are no faster
_STEP = 16  # widths are multiples of it, so that there are few shapes to check
_KEPT = 1 << 23  # numbers (32 MB) of scratch memory that a thread keeps
_local = threading.local()


class Block:
    """Rows [start, stop) as float32 tensors, made when first used and gone when the block is done.

    It belongs to one thread. (A cached_property would make all threads wait for each other before Python 3.12.)
    """

    def __init__(self, rows: Rows, start: int, stop: int) -> None:
        self._rows, self.start, self.stop = rows, start, stop
        self._raw: torch.Tensor | None = None
        self._shifted: torch.Tensor | None = None

    @property
    def raw(self) -> torch.Tensor:
        """(n, d) as they are."""
        if self._raw is None:
            self._raw = self._rows._floats(self.start, self.stop)
        return self._raw

    @property
    def shifted(self) -> torch.Tensor:
        """(n, d) less `Rows.shift`."""
        if self._shifted is None:
            out = _scratch("shifted", self.stop - self.start, self._rows.width)
            self._shifted = torch.sub(self.raw, blocks.borrow(self._rows.shift), out=out)
        return self._shifted


Work = Callable[[Block, torch.Tensor], R]


@dataclass
class _Request:
    work: Work[Any]
    columns: torch.Tensor | None  # (c, d)
    shifted: bool
    results: list[Any] = field(default_factory=list)
    error: Exception | None = None


class Rows:
    """A matrix x (N, d), or a shard of it, read in fixed blocks; calls of several threads are fused.

    `shard` (i, n) is the i-th of n parts of the blocks: passes go over these rows alone, rows `start` to `stop`. Blocks
    are those of the whole matrix, so the parts' answers joined have the bits of the whole's.

    Raises:
        ValueError: x is no numeric matrix.
    """

    def __init__(self, x: np.ndarray, shard: tuple[int, int] = (0, 1), observe: Observe | None = None) -> None:
        blocks.check_matrix(x)
        self._fuse = Fuser(observe)
        self.x, self.count, self.width = x, len(x), x.shape[1]
        self.block = blocks.block_rows(self.width)
        part, parts = shard
        number = -(-self.count // self.block)
        self.start = min(number * part // parts * self.block, self.count)
        self.stop = min(number * (part + 1) // parts * self.block, self.count)
        address = x.__array_interface__["data"][0]
        self._direct = x.dtype == np.float32 and x.flags.c_contiguous and address % 64 == 0
        self._constants, self._making_norms = threading.Lock(), threading.Lock()
        self._shift: np.ndarray | None = None
        self._norms: np.ndarray | None = None
        self._sizes = {min(self.block, self.count), self.count % self.block or self.block}  # of the blocks

    def __len__(self) -> int:
        """Rows that passes go over."""
        return self.stop - self.start

    def _floats(self, start: int, stop: int) -> torch.Tensor:
        if self._direct:
            return blocks.borrow(self.x[start:stop])
        out = _scratch("raw", stop - start, self.width)
        return blocks.float_rows(self.x, start, stop, out=out)

    @property
    def shift(self) -> np.ndarray:
        """(d,) float32 to move rows by: distances do not change, and their rounding becomes small."""
        with self._constants:
            if self._shift is None:
                self._shift = blocks.center(self.x)
            return self._shift

    @property
    def fuses(self) -> bool:
        """Whether this machine's products allow fusing: a column has the same bits alone and among others."""
        return all(columns_are_stable(self.width, rows) for rows in self._sizes)

    @property
    def norms(self) -> np.ndarray:
        """(stop - start,) float32 squared norms of the shifted rows; computed once."""
        with self._making_norms:
            if self._norms is None:
                self._norms = np.concatenate([np.empty(0, np.float32), *self.sweep(self._block_norms)])
            return self._norms

    @staticmethod
    def _block_norms(block: Block, _: torch.Tensor) -> np.ndarray:
        norms = block.shifted.square().sum(1)
        if not torch.isfinite(norms.sum()):
            blocks.check_finite(block.raw, "x", block.start)
            largest = block.shifted.abs().max()
            raise ValueError(f"x is too large for squared distances in rows {block.start}..{block.stop - 1}: {largest}")
        return norms.numpy()

    def sweep(self, work: Work[R], columns: torch.Tensor | None = None, shifted: bool = False) -> list[R]:
        """[work(block, product)] over all blocks, in order; product (c, n) is columns (c, d) times the rows.

        Called from several threads at once, their passes become one. `work` runs in a kernel thread; the block and the
        product are its own only until it returns. What it raises is raised here, and disturbs no other request.
        """
        if not len(self):
            return []
        request = _Request(work, columns, shifted)
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
                for request, at in group.members:
                    found.append(_attempt(request, block, product[at]))
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

    columns: torch.Tensor | None  # (P, d)
    shifted: bool
    members: list[tuple[_Request, slice]]

    def product(self, block: Block) -> torch.Tensor:
        if self.columns is None:
            return torch.empty(0)
        rows = block.shifted if self.shifted else block.raw
        out = _scratch("product", len(self.columns), len(rows))
        return torch.mm(self.columns, rows.T, out=out)


def _groups(batch: Sequence[_Request], stable: bool) -> list[_Group]:
    groups = [_Group(None, False, [(request, slice(None)) for request in batch if request.columns is None])]
    for shifted in (False, True):
        panel: list[_Request] = []
        for request in batch:
            if request.columns is None or request.shifted != shifted:
                continue
            total = sum(len(r.columns) for r in panel if r.columns is not None) + len(request.columns)
            if panel and (total > PANEL or not stable):
                groups.append(_panel(panel, shifted))
                panel = []
            panel.append(request)
        if panel:
            groups.append(_panel(panel, shifted))
    return groups


def _panel(requests: Sequence[_Request], shifted: bool) -> _Group:
    parts = [request.columns for request in requests if request.columns is not None]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    starts = [0, *ends[:-1]]
    members = [(r, slice(a, b)) for r, a, b in zip(requests, starts, ends, strict=True)]
    return _Group(widened(torch.cat(parts)), shifted, members)


def widened(columns: torch.Tensor) -> torch.Tensor:
    """Columns (c, d) with zeros up to a width that products are made in."""
    out = torch.zeros((-(-len(columns) // _STEP) * _STEP, columns.shape[1]))
    out[: len(columns)] = columns
    return out


@functools.cache
def columns_are_stable(width: int, rows: int) -> bool:
    """Whether the columns of float32 products over blocks of `rows` rows have the same bits alone and among others.

    What a product's routine does depends on shapes, never on values: random numbers tell.
    """
    return blocks.alone(lambda: _columns_are_stable(width, rows))


def _columns_are_stable(width: int, rows: int) -> bool:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn((rows, width), generator=draw)
    columns = torch.randn((PANEL, width), generator=draw)
    whole = torch.mm(columns, x.T)
    for count in range(_STEP, PANEL, _STEP):
        if not torch.equal(torch.mm(columns[:count].clone(), x.T), whole[:count]):
            return False
    return all(torch.equal(torch.mm(columns.roll(by, 0), x.T), whole.roll(by, 0)) for by in (1, 5, 8))


def _scratch(name: str, rows: int, width: int) -> torch.Tensor:
    """Uninitialized float32 (rows, width) of this thread, used again: fresh memory costs a page fault every 4 KB."""
    if rows * width > _KEPT:
        return torch.empty((rows, width))
    kept: dict[str, torch.Tensor] = _local.__dict__.setdefault("kept", {})
    flat = kept.get(name)
    if flat is None or flat.numel() < rows * width:
        flat = kept[name] = torch.empty(rows * width)
    return flat[: rows * width].view(rows, width)
