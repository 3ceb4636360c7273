"""Two `PoolScores`: for linear heads, whose work a pool scorer does, and for models of this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.linear import LinearHead


@dataclass(frozen=True)
class LinearScores:
    """Bulk reads for a linear head (None before any label: only what needs no model).

    `service` is a `PoolScorer` or a client with its methods; `default_space` is where distances are taken when a
    strategy names no space: for a linear model the space it was fitted on is its embedding.
    """

    service: Any
    head: LinearHead | None
    default_space: str

    def _need_head(self) -> LinearHead:
        if self.head is None:
            raise ValueError("this strategy scores with a model, and there is none before any label")
        return self.head

    def top(self, score: str, k: int, exclude: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self.service.linear_top(self._need_head(), score, k, exclude, seed)

    def badge(self, k: int, exclude: np.ndarray, seed: int, first: str = "norm") -> tuple[np.ndarray, np.ndarray]:
        return self.service.linear_badge(self._need_head(), k, exclude, seed, first)

    def kcenter(
        self, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int, space: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.service.kcenter(space or self.default_space, k, centers, exclude, seed)

    def kmeans(self, clusters: int, seed: int, space: str | None = None) -> np.ndarray:
        return self.service.kmeans(space or self.default_space, clusters, seed)

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        return self.service.typicality(space or self.default_space, groups, neighbors)


@dataclass(frozen=True)
class ModelScores:
    """Bulk reads for a model of this process: its outputs over the pool are computed once and kept for the round.

    Where a strategy names a space, or the model has no embedding, distances are the service's work on shared rows.
    """

    model: Model
    service: Any
    default_space: str
    has_embedding: bool

    @cached_property
    def _probs(self) -> np.ndarray:
        return self.model.output("probs")  # (N, C)

    @cached_property
    def _embedding(self) -> np.ndarray:
        return self.model.output("embedding")  # (N, D)

    def _own(self, space: str | None) -> bool:
        return space is None and self.has_embedding

    def top(self, score: str, k: int, exclude: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.top_scores import top_k, uncertainty

        return top_k(uncertainty(self._probs, score), k, exclude, seed)

    def badge(self, k: int, exclude: np.ndarray, seed: int, first: str = "norm") -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.kmeanspp import badge

        return badge(self._embedding, self._probs, k, exclude, seed, first=first)

    def kcenter(
        self, k: int, centers: np.ndarray, exclude: np.ndarray, seed: int, space: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self._own(space):
            return self.service.kcenter(space or self.default_space, k, centers, exclude, seed)
        from ray_al.kernels.kcenter import kcenter_greedy

        return kcenter_greedy(self._embedding, k, centers, exclude, seed)

    def kmeans(self, clusters: int, seed: int, space: str | None = None) -> np.ndarray:
        if not self._own(space):
            return self.service.kmeans(space or self.default_space, clusters, seed)
        from ray_al.kernels.kmeans import kmeans

        return kmeans(self._embedding, clusters, seed)[0]

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        if not self._own(space):
            return self.service.typicality(space or self.default_space, groups, neighbors)
        from ray_al.kernels.typicality import typicality

        return typicality(self._embedding, groups, neighbors)
