"""The pool scorer: everything that reads whole spaces. It holds no state that an answer depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_al.core.linear import Linear, LinearHead
from ray_al.core.metrics import classification_metrics
from ray_al.core.pool import DatasetReader, SpaceReader
from ray_al.services.excerpt import Excerpt
from ray_al.services.known import Memory
from ray_al.services.shard import BadgeTask, CoverageLost, KCenterTask, Shard, ShardLike

if TYPE_CHECKING:
    from ray_al.kernels.coverage import Coverage

CALLS_AT_ONCE = 64  # that ask all shards
ATTEMPTS = 5  # at a selection whose shards start again meanwhile


class PoolScorer:
    """Linear heads and batch selection over the spaces of one dataset.

    Each answer depends on the call's arguments alone, bit for bit, on processors of one kind: not on the number of
    threads or shards, or on other calls. Calls of several threads share their passes over the rows. Kernels are
    imported when used, so that holding a scorer costs nothing.

    Args:
        reader: gives the spaces.
        shard: the part of the rows that passes of this process go over; by default all of them.
        peers: all parts in order, when the rows are shared out; this process's own one among them.

    With `among`, ascending ids, only these items are read and returned; `ray_al.core.interfaces.PoolScores` says more.
    """

    def __init__(
        self, reader: SpaceReader, shard: Shard | None = None, peers: Sequence[ShardLike] | None = None
    ) -> None:
        self.reader = reader
        self.shard = shard or Shard(reader)
        self._parts = peers or [self.shard]
        self._near = self._parts.index(self.shard)
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE * len(self._parts)) if len(self._parts) > 1 else None

    def _ask(self, work: Callable[[ShardLike], Any]) -> list[Any]:
        return list(self._threads.map(work, self._parts)) if self._threads else [work(self._parts[0])]

    def _coverage(self, task: KCenterTask | BadgeTask) -> Coverage:
        if not self._threads:
            return self._parts[0].coverage(task)
        from ray_al.kernels.coverage import ShardedCoverage

        asked: list[Future[Coverage]] = []
        try:
            asked += [self._threads.submit(part.coverage, task) for part in self._parts]
            return ShardedCoverage([begun.result() for begun in asked], self._near, self._threads)
        except BaseException:
            for begun in asked:
                begun.add_done_callback(_close)  # now, or when it has begun after all
            raise

    def _within(self, space: str, ids: np.ndarray) -> PoolScorer:
        """A scorer over these rows alone, in the order of the ids."""
        Excerpt.of(ids, self._size(space))
        rows = _Excerpt(space, self.reader.read(space, "pool")[ids])
        return PoolScorer(rows, Shard(rows, memory=Memory(probs=self.shard.memory.probs)))

    def _size(self, space: str) -> int:
        return len(self.reader.read(space, "pool"))

    def fit_linear(
        self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float, tol: float
    ) -> LinearHead:
        """Multinomial logistic regression on rows `ids` of a space; see `ray_al.kernels.logistic`."""
        from ray_al.kernels.logistic import fit_logistic

        rows = self.reader.read(space, "pool")[ids]
        rows = rows if rows.dtype == np.float16 else np.asarray(rows, np.float32)
        ((weights, bias),) = fit_logistic([(rows, labels)], classes, l2, tol)
        return LinearHead(space, weights, bias)

    def fit_measured(
        self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float, tol: float
    ) -> tuple[LinearHead, dict[str, float] | None]:
        """`fit_linear`, and the head's `linear_metrics`: of a small fit, a call takes longer than these."""
        head = self.fit_linear(space, ids, labels, classes, l2, tol)
        return head, self.linear_metrics(head)

    def linear_metrics(self, head: Linear) -> dict[str, float] | None:
        """`classification_metrics` of the test split, whose probabilities take longer to travel than to be computed;
        None where the reader has no labels."""
        if not isinstance(self.reader, DatasetReader):
            return None
        return classification_metrics(self.linear_probs(head, None, "test"), self.reader.labels()[1])

    def linear_probs(self, head: Linear, ids: np.ndarray | None, split: str) -> np.ndarray:
        """(n, C) float32 class probabilities of rows `ids` of a split, all when None."""
        from ray_al.kernels.top_scores import linear_probs

        if ids is not None:
            return linear_probs(self.reader.read(head.space, split)[ids], head.weights, head.bias)
        if split == "test":  # small: not worth asking others
            return linear_probs(self.reader.read(head.space, split), head.weights, head.bias)
        parts = self._ask(lambda part: part.probs(head, split))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def linear_top(
        self, head: Linear, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.blocks import check_ids, free_mask
        from ray_al.kernels.top_scores import best_of

        if among is not None:
            inside = Excerpt.of(among)
            rows, values = self._within(head.space, among).linear_top(head, score, k, inside.rows(exclude), seed)
            return inside.ids(rows), values
        exclude = check_ids(exclude, self._size(head.space), "exclude")
        free_mask(self._size(head.space), k, exclude)
        found = self._ask(lambda part: part.leading(head, score, k, exclude))
        ids, values = (np.concatenate(column) for column in zip(*found, strict=True))
        return best_of(ids, values, k, seed)

    def linear_confident(
        self, head: Linear, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if among is not None:
            inside = Excerpt.of(among)
            rows, classes = self._within(head.space, among).linear_confident(
                head, score, threshold, inside.rows(exclude)
            )
            return inside.ids(rows), classes
        found = self._ask(lambda part: part.confident(head, score, threshold, exclude))
        ids, classes = (np.concatenate(column) for column in zip(*found, strict=True))
        return ids, classes

    def probs_top(
        self, probs: np.ndarray, score: str, k: int, exclude: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of highest `score` of given probabilities (n, C), for callers that import no kernels."""
        from ray_al.kernels.top_scores import top_k, uncertainty

        return top_k(uncertainty(probs, score), k, exclude, seed)

    def probs_confident(
        self, probs: np.ndarray, score: str, threshold: float, exclude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of given probabilities (n, C) whose `score` is at most `threshold`, and their classes."""
        from ray_al.kernels.confident import confident

        return confident(probs, probs, score, threshold, exclude)

    def linear_badge(
        self, head: Linear, k: int, exclude: np.ndarray, seed: int, first: str, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.blocks import check_ids, free_mask
        from ray_al.kernels.kmeanspp import draw_badge

        if among is not None:
            inside = Excerpt.of(among)
            rows, squares = self._within(head.space, among).linear_badge(head, k, inside.rows(exclude), seed, first)
            return inside.ids(rows), squares
        exclude = check_ids(exclude, self._size(head.space), "exclude")
        free_mask(self._size(head.space), k, exclude)
        return self._picked(BadgeTask(head, exclude, seed), lambda coverage: draw_badge(coverage, k, seed, first))

    def kcenter(
        self,
        space: str,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.blocks import check_ids, free_mask
        from ray_al.kernels.kcenter import pick_farthest

        x = self.reader.read(space, "pool")
        count = len(x)
        centers, exclude = check_ids(centers, count, "centers"), check_ids(exclude, count, "exclude")
        if among is not None:
            inside, exclude = Excerpt.around(among, centers, exclude)
            assert inside.kept is not None
            small = self._within(space, inside.kept)
            rows, far = small.kcenter(space, k, inside.rows(centers), inside.rows(exclude), seed)
            return inside.ids(rows), far
        free_mask(count, k, centers, exclude)
        task = KCenterTask(space, centers, exclude, seed)
        return self._picked(task, lambda coverage: pick_farthest(coverage, k, x))

    def _picked(
        self, task: KCenterTask | BadgeTask, pick: Callable[[Coverage], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        for left in reversed(range(ATTEMPTS)):
            coverage, whole = None, False
            try:
                coverage = self._coverage(task)
                picked = pick(coverage)
                whole = True
                return picked
            except CoverageLost:
                if not left:
                    raise
            finally:
                if coverage is not None:
                    with contextlib.suppress(CoverageLost):  # then it keeps nothing
                        coverage.close(whole)
        raise AssertionError("the last attempt returns or raises")

    def kmeans(self, space: str, clusters: int, seed: int, among: np.ndarray | None = None) -> np.ndarray:
        from ray_al.kernels.kmeans import kmeans

        if among is not None:
            return kmeans(self.reader.read(space, "pool")[Excerpt.of(among).kept], clusters, seed)[0]
        key = self.shard.token, space, clusters, seed
        return self.shard.memory.clusterings.get(key, lambda: kmeans(self.shard.whole(space), clusters, seed)[0])

    def typicality(self, space: str, groups: list[np.ndarray], neighbors: int) -> list[np.ndarray]:
        from ray_al.kernels.typicality import typicality

        return typicality(self.reader.read(space, "pool"), groups, neighbors)


def _close(begun: Future[Coverage]) -> None:
    if not begun.cancelled() and not begun.exception():
        with contextlib.suppress(Exception):  # its process is gone, too
            begun.result().close(False)


class _Excerpt:
    """Some rows of one space, as a reader."""

    def __init__(self, space: str, rows: np.ndarray) -> None:
        self._space, self._rows = space, rows

    def read(self, space: str, split: str) -> np.ndarray:
        assert (space, split) == (self._space, "pool")
        return self._rows
