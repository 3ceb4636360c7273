"""Parts of the neighbor service: rows of ids that were worked out before, and shards that other services search."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class IndexShard:
    """An index over rows [start, stop) that another service searches."""

    def __init__(self, service: Any, space: str, index: str, unit: bool, start: int, stop: int) -> None:
        self._service, self._rows = service, (index, start, stop, unit)
        self._space, self.count = space, stop - start

    def search(self, queries: np.ndarray, k: int, free: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        exclude = np.empty(0, np.int64) if free is None else np.flatnonzero(~free)
        found: tuple[np.ndarray, np.ndarray] = self._service.search(self._space, queries, k, exclude, *self._rows)
        return found


class RowMemo:
    """Rows (k,) of pool ids, one per item, worked out when first asked for. Takes memory for these alone."""

    def __init__(self, count: int, k: int) -> None:
        self._place = np.full(count, -1, np.int32)  # of an item in the table
        self._table = np.empty((16, k), np.int32 if count < 2**31 else np.int64)
        self._used = 0
        self._lock = threading.Lock()

    def rows(self, ids: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        missing = np.unique(ids[self._place[ids] < 0])
        fresh = work(missing) if len(missing) else None  # outside of the lock: others look up meanwhile
        with self._lock:
            if fresh is not None:
                new = self._place[missing] < 0  # not by another thread by now
                self._add(missing[new], fresh[new])
            return self._table[self._place[ids]].astype(np.int64)

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        end = self._used + len(ids)
        if end > len(self._table):
            grown = np.empty((max(end, 2 * len(self._table)), self._table.shape[1]), self._table.dtype)
            grown[: self._used] = self._table[: self._used]
            self._table = grown
        self._table[self._used : end] = rows
        self._place[ids] = np.arange(self._used, end)
        self._used = end
