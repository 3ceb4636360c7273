"""Rows of an array that stays on the disk: chosen now, read block by block when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Rows:
    """`array[ids]` of a memory-mapped array, not yet read; what is asked of it is read and becomes a plain array."""

    array: np.ndarray
    ids: np.ndarray  # (n,) int64

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ids), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, which: Any) -> np.ndarray:
        found: np.ndarray = self.array[self.ids[which]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on the disk cannot become an array without a copy")
        return np.asarray(self.array[self.ids], dtype)


def take(array: np.ndarray, ids: np.ndarray | None) -> np.ndarray | Rows:
    """Rows `ids` of an array, all of them for None; of a memory-mapped array they are not read yet."""
    if ids is None:
        return array
    return Rows(array, ids) if is_mapped(array) else array[ids]


def is_mapped(array: Any) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def blocks(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Consecutive blocks of rows, C-contiguous, of bounded size where the rows are on the disk."""
    per_row = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    step = max(1, BLOCK_BYTES // per_row)
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step])
