"""A block of a matrix's rows, in the forms that the requests of a pass ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ray_al.kernels import blocks, distances
from ray_al.kernels.products import half_scratch, scratch

if TYPE_CHECKING:
    from ray_al.kernels.passes import Rows


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
            self._raw = self._rows.floats(self.start, self.stop)
        return self._raw

    @property
    def shifted(self) -> torch.Tensor:
        """(n, d) less `Rows.shift`."""
        if self._shifted is None:
            out = scratch("shifted", self.stop - self.start, self._rows.width)
            self._shifted = torch.sub(self.raw, blocks.borrow(self._rows.shift), out=out)
        return self._shifted

    @property
    def half(self) -> torch.Tensor:
        """(n, d) shifted, bfloat16."""
        kept = self._rows._half
        if kept is not None:
            return kept[self.start - self._rows.start : self.stop - self._rows.start]
        return self.halved(half_scratch("half", self.stop - self.start, self._rows.width))

    def halved(self, out: torch.Tensor) -> torch.Tensor:
        """out (n, d) bfloat16, set to the shifted rows. Norms that are not known are worked on the way."""
        self._measure(out.view(torch.uint16).numpy())
        return out

    @property
    def norms(self) -> np.ndarray:
        """(2, n) float32 squared norms of the shifted rows, and of the rows as they are, if they pass the `check`. They
        are kept with the rows."""
        self.check()
        return self._rows.block_norms[self.start]

    def check(self) -> None:
        """Raise ValueError if a row is not finite, or too large for squared distances."""
        if self.start not in self._rows.block_norms:
            self._measure(np.empty((0, 0), np.uint16))

    def _measure(self, half: np.ndarray) -> None:
        known = self._rows.block_norms
        norms = np.empty((2, 0 if self.start in known else self.stop - self.start), np.float32)
        distances.measure(*self.all(), self._rows.shift, norms, half)
        if not norms[0].max(initial=0) < distances.LARGEST:
            name = self._rows.name
            blocks.check_finite(self.raw, name, self.start)
            where = f"{name} is too large for squared distances in rows {self.start}..{self.stop - 1}"
            raise ValueError(f"{where}: {self.shifted.abs().max()}")
        known.setdefault(self.start, norms)

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """`some` of all rows."""
        return self.some(np.arange(self.stop - self.start))

    def some(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Memory of `halves.loadable` (.., d), of any alignment, and the places (m,) there of the block's rows `at`
        (m,). Valid until this thread's next call."""
        few = self._raw is None and 4 * len(at) <= self.stop - self.start
        if self._rows.loadable is None and not few:
            return self.raw.numpy(), at
        return self._rows.found(at + self.start)
