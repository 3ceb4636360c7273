"""A shard of the pool: some blocks of every space, and the passes over them that all trajectories share."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ray_al.core.linear import Linear
from ray_al.core.pool import SpaceReader

if TYPE_CHECKING:
    from ray_al.kernels.coverage import Coverage
    from ray_al.kernels.fuser import Observe
    from ray_al.kernels.passes import Rows

PROBS_BYTES = 2**30  # of probabilities that badge keeps, all selections together; beyond it they are made anew
KNOWN_BYTES = 2**29  # of distances to labeled items, kept from round to round


@dataclass(frozen=True)
class KCenterTask:
    """Distances in a space to the nearest of `centers`; neither they nor `exclude` may be picked."""

    space: str
    centers: np.ndarray
    exclude: np.ndarray
    seed: int


@dataclass(frozen=True)
class BadgeTask:
    """Distances between gradient embeddings under a linear head."""

    head: Linear
    exclude: np.ndarray
    seed: int


class CoverageLost(RuntimeError):
    """A shard's process started again in the middle of a selection, which has to begin anew."""


class ShardLike(Protocol):
    """A shard here, or one in another process."""

    def leading(self, head: Linear, score: str, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def probs(self, head: Linear, split: str) -> np.ndarray: ...

    def coverage(self, task: KCenterTask | BadgeTask) -> Coverage: ...


class Shard:
    """Part `place` (i, n) of the rows of every space of one dataset; all of them by default.

    `observe` is told of every pass, see `ray_al.kernels.passes.Rows`.
    """

    def __init__(self, reader: SpaceReader, place: tuple[int, int] = (0, 1), observe: Observe | None = None) -> None:
        self._reader, self._place, self._observe = reader, place, observe
        self._rows: dict[tuple[str, str], Rows] = {}
        self._lock = threading.RLock()  # a finalizer may come while it is held
        self._held = 0  # bytes of probabilities
        self._known = KnownCoverages(KNOWN_BYTES)

    def rows(self, space: str, split: str) -> Rows:
        """The shard's rows of a space, the same object for all who ask: it is what fuses their passes."""
        from ray_al.kernels.passes import Rows

        with self._lock:
            if (space, split) not in self._rows:
                self._rows[space, split] = Rows(self._reader.read(space, split), self._place, self._observe)
            return self._rows[space, split]

    def leading(self, head: Linear, score: str, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and uncertainties of the shard's k most uncertain items, and of all that equal the last of these."""
        from ray_al.kernels.blocks import check_ids
        from ray_al.kernels.top_scores import leading, linear_uncertainty

        rows = self.rows(head.space, "pool")
        values = linear_uncertainty(rows, head.weights, head.bias, score)
        free = np.ones(rows.count, bool)
        free[check_ids(exclude, rows.count, "exclude")] = False
        at, values = leading(values, k, free[rows.start : rows.stop])
        return at + rows.start, values

    def probs(self, head: Linear, split: str) -> np.ndarray:
        """(n, C) float32 of the shard's rows of a split."""
        from ray_al.kernels.top_scores import linear_probs

        return linear_probs(self.rows(head.space, split), head.weights, head.bias)

    def coverage(self, task: KCenterTask | BadgeTask) -> Coverage:
        return self._to_centers(task) if isinstance(task, KCenterTask) else self._of_gradients(task)

    def _to_centers(self, task: KCenterTask) -> Coverage:
        from ray_al.kernels.coverage import RowCoverage
        from ray_al.kernels.geometry import Euclidean

        rows = self.rows(task.space, "pool")
        free = _free(rows.count, task.centers, task.exclude)
        best, count = self._known.longest(task.space, task.centers) if rows.fuses else (None, 0)
        keep = partial(self._known.keep, task.space) if rows.fuses else None
        coverage = RowCoverage(Euclidean(rows), free, task.seed, best, task.centers[:count], keep)
        coverage.cover(task.centers[count:])
        return coverage

    def _of_gradients(self, task: BadgeTask) -> Coverage:
        from ray_al.kernels.coverage import RowCoverage
        from ray_al.kernels.geometry import GradientEmbedding
        from ray_al.kernels.top_scores import linear_probs_of_block

        head, rows = task.head, self.rows(task.head.space, "pool")
        table = self._kept_probs(head, 4 * len(rows) * head.bias.shape[-1])

        def probs(start: int, stop: int) -> np.ndarray:
            if table is not None and rows.start <= start and stop <= rows.stop:
                return table[start - rows.start : stop - rows.start]
            return linear_probs_of_block(rows.x[start:stop], head.weights, head.bias)

        return RowCoverage(GradientEmbedding(rows, probs), _free(rows.count, task.exclude), task.seed)

    def _kept_probs(self, head: Linear, size: int) -> np.ndarray | None:
        """The shard's probabilities, unless selections under way hold too many bytes of them already."""
        with self._lock:
            if self._held + size > PROBS_BYTES:
                return None
            self._held += size
        try:
            table = self.probs(head, "pool")
        except BaseException:
            self._let_go(size)
            raise
        weakref.finalize(table, self._let_go, size)
        return table

    def _let_go(self, size: int) -> None:
        with self._lock:
            self._held -= size


def _free(count: int, *taken: np.ndarray) -> np.ndarray:
    free = np.ones(count, bool)
    for ids in taken:
        free[ids] = False
    return free


class KnownCoverages:
    """Distances to the centers of earlier calls, by what the centers were: the next round's begin with the same.

    A minimum over pairs does not depend on how it was reached, so this changes no result, only the work.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._kept: OrderedDict[tuple[str, int, bytes], np.ndarray] = OrderedDict()

    def longest(self, space: str, centers: np.ndarray) -> tuple[np.ndarray | None, int]:
        """A copy of the distances to the longest known beginning of the centers, and its length."""
        with self._lock:
            lengths = sorted({n for name, n, _ in self._kept if name == space and n <= len(centers)}, reverse=True)
            for length in lengths:
                key = (space, length, _digest(centers[:length]))
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key].copy(), length
        return None, 0

    def keep(self, space: str, centers: np.ndarray, best: np.ndarray) -> None:
        with self._lock:
            self._kept[space, len(centers), _digest(centers)] = best
            while self._kept and sum(array.nbytes for array in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)


def _digest(ids: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(ids, np.int64).tobytes()).digest()
