"""A shard of the pool: some blocks of every space, and the passes over them that all trajectories share."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ray_al.core.linear import Linear
from ray_al.core.pool import SpaceReader
from ray_al.services.kept import Kept
from ray_al.services.known import Memory

if TYPE_CHECKING:
    from ray_al.kernels.coverage import Coverage
    from ray_al.kernels.fuser import Observe
    from ray_al.kernels.passes import Rows


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

    def confident(
        self, head: Linear, score: str, threshold: float, exclude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def probs(self, head: Linear, split: str) -> np.ndarray: ...

    def coverage(self, task: KCenterTask | BadgeTask) -> Coverage: ...


class Shard:
    """Part `place` (i, n) of the rows of every space of one dataset; all of them by default.

    `observe` is told of every pass, see `ray_al.kernels.passes.Rows`; `memory` is shared by the shards of a process.
    """

    def __init__(
        self,
        reader: SpaceReader,
        place: tuple[int, int] = (0, 1),
        observe: Observe | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._reader, self._place, self._observe, self.memory = reader, place, observe, memory or Memory()
        self._rows, self.token = Kept(), object()  # a token, not an id: that may be another shard's later

    def rows(self, space: str, split: str) -> Rows:
        """The shard's rows of a space, the same object for all who ask: it is what fuses their passes."""
        from ray_al.kernels.passes import Rows

        made: Rows = self._rows.get(
            (space, split), lambda: Rows(self._reader.read(space, split), self._place, self._observe)
        )
        return made

    def whole(self, space: str) -> Rows:
        """All rows of a space's pool, for what is not shared out."""
        from ray_al.kernels.passes import Rows

        if self._place == (0, 1):
            return self.rows(space, "pool")
        made: Rows = self._rows.get((space,), lambda: Rows(self._reader.read(space, "pool")))
        return made

    def leading(self, head: Linear, score: str, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and uncertainties of the shard's k most uncertain items, and of all that equal the last of these."""
        from ray_al.kernels.top_scores import leading, linear_uncertainty

        rows = self.rows(head.space, "pool")
        values = linear_uncertainty(rows, head.weights, head.bias, score)
        at, values = leading(values, k, _free(rows.count, exclude)[rows.start : rows.stop])
        return at + rows.start, values

    def confident(
        self, head: Linear, score: str, threshold: float, exclude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and classes of the shard's items whose uncertainty is at most `threshold`, ascending."""
        from ray_al.kernels.blocks import check_ids
        from ray_al.kernels.top_scores import linear_uncertainty

        rows = self.rows(head.space, "pool")
        classes = np.empty(len(rows), np.int64)
        sure = linear_uncertainty(rows, head.weights, head.bias, score, classes) <= threshold
        taken = check_ids(exclude, rows.count, "exclude") - rows.start
        sure[taken[(taken >= 0) & (taken < len(rows))]] = False
        at = np.flatnonzero(sure)
        return at + rows.start, classes[at]

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
        known, key = self.memory.known, (self.token, task.space)
        best, count = known.longest(key, task.centers)
        keep = partial(known.keep, key, count)
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

        known = probs if table is None or len(table) < rows.count else table
        return RowCoverage(GradientEmbedding(rows, known), _free(rows.count, task.exclude), task.seed)

    def _kept_probs(self, head: Linear, size: int) -> np.ndarray | None:
        """The shard's probabilities, unless selections under way hold too many bytes of them already."""
        if not self.memory.probs.take(size):
            return None
        try:
            table = self.probs(head, "pool")
        except BaseException:
            self.memory.probs.give(size)
            raise
        weakref.finalize(table, self.memory.probs.give, size)
        return table


def _free(count: int, *taken: np.ndarray) -> np.ndarray:
    free = np.ones(count, bool)
    for ids in taken:
        free[ids] = False
    return free
