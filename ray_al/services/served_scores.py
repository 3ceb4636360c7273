"""`PoolScores` for models whose probabilities a service has worked out: the trial's process imports no kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.services.excerpt import Excerpt
from ray_al.services.shared_rows import SharedRows


@dataclass(frozen=True)
class ServedScores(SharedRows):
    """Bulk reads for a model that has the one head "probs": they travel to the pool scorer with every call."""

    model: Model

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
