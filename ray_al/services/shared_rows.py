"""What every kind of `PoolScores` leaves to the pool scorer: distances between rows of shared spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SharedRows:
    """`service` is a `PoolScorer` or a client with its methods; `default_space` is where distances are taken when a
    strategy names no space."""

    service: Any
    default_space: str

    def shared(self, space: str | None) -> str | None:
        return space or self.default_space

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

    def kmeans(self, clusters: int, seed: int, space: str | None = None, among: np.ndarray | None = None) -> np.ndarray:
        return self.service.kmeans(space or self.default_space, clusters, seed, among)

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        return self.service.typicality(space or self.default_space, groups, neighbors)
