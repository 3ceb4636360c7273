"""The pool scorer: everything that reads whole spaces. It holds no state that a call depends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_al.core.linear import LinearHead
from ray_al.core.pool import SpaceReader

PROBS_AT_ONCE = 2**27  # probabilities (512 MB) up to which badge gets them as one array


@dataclass(frozen=True)
class PoolScorer:
    """Linear heads and batch selection over the spaces of one dataset.

    Each answer depends on the call's arguments alone, bit for bit: not on the number of threads, on other calls, or on
    where it runs. Kernels are imported when used, so that holding a scorer costs nothing.
    """

    reader: SpaceReader

    def fit_linear(self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> LinearHead:
        """Multinomial logistic regression on rows `ids` of a space; see `ray_al.kernels.logistic`."""
        from ray_al.kernels.logistic import fit_logistic

        rows = np.asarray(self.reader.read(space, "pool")[ids], np.float32)
        ((weights, bias),) = fit_logistic([(rows, labels)], classes, l2)
        return LinearHead(space, weights, bias)

    def linear_probs(self, head: LinearHead, ids: np.ndarray | None, split: str) -> np.ndarray:
        """(n, C) float32 class probabilities of rows `ids` of a split, all when None."""
        from ray_al.kernels.top_scores import linear_probs

        rows = self.reader.read(head.space, split)
        return linear_probs(rows if ids is None else rows[ids], head.weights, head.bias)

    def linear_top(
        self, head: LinearHead, score: str, k: int, exclude: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.top_scores import linear_uncertainty, top_k

        values = linear_uncertainty(self.reader.read(head.space, "pool"), head.weights, head.bias, score)  # (N,)
        return top_k(values, k, exclude, seed)

    def linear_badge(
        self, head: LinearHead, k: int, exclude: np.ndarray, seed: int, first: str
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.kmeanspp import badge
        from ray_al.kernels.top_scores import linear_probs

        rows = self.reader.read(head.space, "pool")
        if len(rows) * len(head.bias) <= PROBS_AT_ONCE:
            return badge(rows, self.linear_probs(head, None, "pool"), k, exclude, seed, first=first)

        def probs(start: int, stop: int) -> np.ndarray:
            return linear_probs(rows[start:stop], head.weights, head.bias)

        return badge(rows, probs, k, exclude, seed, first=first)

    def kcenter(
        self, space: str, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.kcenter import kcenter_greedy

        return kcenter_greedy(self.reader.read(space, "pool"), k, centers, exclude, seed)

    def kmeans(self, space: str, clusters: int, seed: int) -> np.ndarray:
        from ray_al.kernels.kmeans import kmeans

        return kmeans(self.reader.read(space, "pool"), clusters, seed)[0]

    def typicality(self, space: str, groups: list[np.ndarray], neighbors: int) -> list[np.ndarray]:
        from ray_al.kernels.typicality import typicality

        return typicality(self.reader.read(space, "pool"), groups, neighbors)
