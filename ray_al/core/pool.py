"""The pool: items without labels, readable in named spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


class SpaceReader(Protocol):
    """Gives whole arrays of a dataset, read-only and shared where possible. `split` is "pool" or "test"."""

    def read(self, space: str, split: str) -> np.ndarray: ...  # (N, ...) float32, float16 or uint8


@runtime_checkable
class DatasetReader(SpaceReader, Protocol):
    """Has the labels, too: for services, never for methods."""

    def labels(self) -> tuple[np.ndarray, np.ndarray]: ...  # of the pool (N,) and of the test split (M,)


@dataclass(frozen=True)
class Pool:
    """Items 0..size-1 and a test split, readable in named spaces. It holds no labels."""

    size: int
    test_size: int
    classes: int
    reader: SpaceReader
    spaces: Sequence[str] = ()

    def inputs(self, space: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        """Rows `ids` of a space (all when None), (n, ...), in the space's own dtype; treat them as read-only."""
        rows = self.reader.read(space, split)
        return rows if ids is None else rows[ids]
