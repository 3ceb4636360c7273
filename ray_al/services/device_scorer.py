"""The pool scorer on a GPU: rows stay there, and calls that wait are done as one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_al.core.linear import Linear, LinearCommittee, LinearHead
from ray_al.core.pool import SpaceReader
from ray_al.kernels.fuser import Fuser
from ray_al.services.pool_scorer import PoolScorer

if TYPE_CHECKING:
    from ray_al.kernels.device.pool import DevicePool
    from ray_al.kernels.fuser import Observe


class DeviceScorer(PoolScorer):
    """Holds all rows of every space that is asked for on one device; each answer is independent of its batch.

    Answers are those of `PoolScorer` up to float32 rounding: near-ties may fall the other way. k-means, typicality,
    the confident, calls `among` some items, and of a committee all but BALD and probabilities run on the CPU.

    Args:
        device: "cuda", "cuda:1", ...
        observe: is told of every batch how long its calls had waited, in seconds, and the bytes of rows it went over.
    """

    def __init__(self, reader: SpaceReader, device: str = "cuda", observe: Observe | None = None) -> None:
        super().__init__(reader)
        self._device, self._pools, self._lock = device, dict[tuple[str, str], "DevicePool"](), threading.Lock()
        self._fuse = Fuser(observe=observe)

    def _pool(self, space: str, split: str = "pool") -> DevicePool:
        from ray_al.kernels.device.pool import DevicePool

        with self._lock:
            if (space, split) not in self._pools:
                self._pools[space, split] = DevicePool(self.reader.read(space, split), device=self._device)
            return self._pools[space, split]

    def _together(self, space: str, kind: Any, request: Any, work: Callable[[DevicePool, Any], Any]) -> Any:
        pool = self._pool(space)
        return self._fuse(
            (space, kind), request, lambda requests: self._do(lambda: work(pool, requests)), pool.rows.x.nbytes
        )

    def _do(self, work: Callable[[], Any]) -> Any:
        """On the CPU in a kernel thread: elsewhere, torch's number of threads decides the last bits."""
        if self._device != "cpu":
            return work()
        from ray_al.kernels.blocks import alone

        return alone(work)

    def fit_linear(
        self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float, tol: float
    ) -> LinearHead:
        found = self._together(
            space, ("fit", classes, l2, tol), (ids, labels), lambda pool, problems: pool.fit(problems, classes, l2, tol)
        )
        return LinearHead(space, found.weights, found.bias)

    def linear_probs(self, head: Linear, ids: np.ndarray | None, split: str) -> np.ndarray:
        if isinstance(head, LinearCommittee):
            mean = sum(self.linear_probs(member, ids, split) for member in head.heads) / np.float32(len(head.heads))
            return np.asarray(mean, np.float32)
        pool = self._pool(head.space, split)
        # Alone in its batch: the answer is larger than what there is to share.
        return self._fuse(
            object(), None, lambda _: [self._do(lambda: pool.probs(_plain(head), ids))], pool.rows.x.nbytes
        )

    def linear_top(
        self, head: Linear, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if among is not None or (isinstance(head, LinearCommittee) and score != "bald"):
            return super().linear_top(head, score, k, exclude, seed, among)

        def work(pool: DevicePool, requests: Any) -> Any:
            heads, ks, excludes, seeds = zip(*requests, strict=True)
            return pool.top(heads, score, ks, excludes, seeds)

        kind = "top", score, head.weights.shape
        return self._together(head.space, kind, (_plain(head), k, exclude, seed), work)

    def linear_badge(
        self, head: Linear, k: int, exclude: np.ndarray, seed: int, first: str, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if among is not None or isinstance(head, LinearCommittee):
            return super().linear_badge(head, k, exclude, seed, first, among)
        from ray_al.kernels.device.kmeanspp import BadgeRequest

        request = BadgeRequest(_plain(head), k, exclude, seed, first)
        return self._together(head.space, "badge", request, lambda pool, requests: pool.badge(requests))

    def kcenter(
        self,
        space: str,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        if among is not None:
            return super().kcenter(space, k, centers, exclude, seed, among)
        from ray_al.kernels.device.kcenter import KCenterRequest

        request = KCenterRequest(k, centers, exclude, seed)
        return self._together(space, "kcenter", request, lambda pool, requests: pool.kcenter(requests))


def _plain(head: Linear) -> Any:
    from ray_al.kernels.device.scores import Head

    return Head(head.weights, head.bias)
