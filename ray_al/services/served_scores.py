"""`PoolScores` for models whose probabilities a service has worked out: the trial's process imports no kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.services.excerpt import Excerpt


@dataclass(frozen=True)
class ServedScores:
    """Bulk reads for a model that has the one head "probs": they travel to the pool scorer with every call.

    Distances are taken in shared spaces, `default_space` where a strategy names none.
    """

    model: Model
    service: Any  # a `PoolScorer`, or a client with its methods
    default_space: str

    @cached_property
    def _probs(self) -> np.ndarray:
        return self.model.output("probs")  # (N, C)

    def _among(self, among: np.ndarray | None) -> np.ndarray:
        return self._probs if among is None else self._probs[among]

    def top(
        self, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = Excerpt.of(among, len(self._probs))
        rows, values = self.service.probs_top(self._among(among), score, k, inside.rows(exclude), seed)
        return inside.ids(rows), values

    def confident(
        self, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = Excerpt.of(among, len(self._probs))
        rows, classes = self.service.probs_confident(self._among(among), score, threshold, inside.rows(exclude))
        return inside.ids(rows), classes

    def badge(
        self, k: int, exclude: np.ndarray, seed: int, first: str = "norm", among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        raise ValueError("badge needs a model with an embedding of its own")

    def kcenter(
        self,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        space: str | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.service.kcenter(space or self.default_space, k, centers, exclude, seed, among)

    def shared(self, space: str | None) -> str | None:
        return space or self.default_space

    def kmeans(self, clusters: int, seed: int, space: str | None = None, among: np.ndarray | None = None) -> np.ndarray:
        return self.service.kmeans(space or self.default_space, clusters, seed, among)

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        return self.service.typicality(space or self.default_space, groups, neighbors)
