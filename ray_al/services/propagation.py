"""Label propagation over one graph, for all who ask: calls that wait at the same time are one block of solves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ray_al.kernels.label_propagation import Sources


class Propagation:
    """The graph `ray_al.kernels.affinity.affinity` makes of neighbors (N, k), and the solves on it."""

    def __init__(self, ids: np.ndarray, distances: np.ndarray, gamma: float, graph: str) -> None:
        from ray_al.kernels.affinity import affinity
        from ray_al.kernels.fuser import Fuser

        self._weights = affinity(ids, distances, gamma, graph)
        self._fuse = Fuser()

    def solve(self, sources: Sources) -> np.ndarray:
        """(N, c) float32; the same bits whatever is solved beside it."""
        from ray_al.kernels.label_propagation import solve

        z: np.ndarray = self._fuse(None, sources, lambda waiting: solve(self._weights, waiting))
        return z

    def jlp(
        self, labeled: np.ndarray, allowed: np.ndarray, count: int, seed: int, alpha: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(count,) picks and their values, of `ray_al.kernels.jlp.pick`."""
        from ray_al.kernels.jlp import pick

        return pick(self._weights, labeled, allowed, count, seed, alpha)
