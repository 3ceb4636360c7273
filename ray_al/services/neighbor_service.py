"""Nearest neighbors in the spaces of one dataset; each space's index is built at first use and kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from ray_al.core.pool import SpaceReader

if TYPE_CHECKING:
    from ray_al.kernels.neighbors import NeighborIndex


class NeighborService:
    """Implements `ray_al.core.interfaces.Neighbors`, exact. Lost state (indexes, graphs) is rebuilt from the spaces."""

    def __init__(self, reader: SpaceReader) -> None:
        self._reader = reader
        self._indexes: dict[str, NeighborIndex] = {}
        self._graphs: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def _index(self, space: str) -> NeighborIndex:
        from ray_al.kernels.neighbors import NeighborIndex

        with self._lock:
            if space not in self._indexes:
                self._indexes[space] = NeighborIndex(self._reader.read(space, "pool"))
            return self._indexes[space]

    def nearest(self, space: str, queries: np.ndarray, exclude: np.ndarray) -> np.ndarray:
        return self._index(space).nearest(queries, exclude)

    def graph(self, space: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        index = self._index(space)
        with self._lock:
            if (space, k) not in self._graphs:
                self._graphs[space, k] = index.graph(k)
            return self._graphs[space, k]
