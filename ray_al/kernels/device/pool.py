"""Everything that a pool scorer does, on one device that holds the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ray_al.kernels.device import kcenter, kmeanspp, logistic, scores
from ray_al.kernels.device.euclidean import DeviceEuclidean
from ray_al.kernels.device.kcenter import KCenterRequest
from ray_al.kernels.device.kmeanspp import BadgeRequest
from ray_al.kernels.device.rows import DeviceRows
from ray_al.kernels.device.scores import BACKENDS, Head
from ray_al.kernels.logistic import LinearHead

_KEPT_ON_CPU = 1 << 30


class DevicePool:
    """Rows [start, stop) of a space, resident on one device, and batch selection for many trajectories among them.

    Answers are those of the CPU kernels up to float32 rounding, with the same rules for ties and the same random
    numbers; what a request gets does not depend on the others of its call. Ids are those of the resident rows.

    Args:
        matrix: (N, d) float16, float32 or uint8; may be a memory map.
        device: "cuda", "cuda:1", "cpu"...
        backend: of linear scores: "triton" or "torch"; None is "triton" on CUDA.
        keep: bytes for the probabilities of a BADGE selection, which are made again each pass beyond it; None is a
            quarter of what is free.

    Raises:
        ValueError: see `DeviceRows`; an unknown backend.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        start: int = 0,
        stop: int | None = None,
        device: str | torch.device = "cpu",
        backend: str | None = None,
        keep: int | None = None,
    ) -> None:
        self.backend = backend or ("triton" if torch.device(device).type == "cuda" else "torch")
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
        self.rows = DeviceRows(matrix, start, stop, device)
        self._keep = keep

    def __len__(self) -> int:
        return self.rows.count

    @property
    def keep(self) -> int:
        if self._keep is not None:
            return self._keep
        return torch.cuda.mem_get_info(self.rows.device)[0] // 4 if self.rows.device.type == "cuda" else _KEPT_ON_CPU

    def top(
        self,
        heads: Sequence[Head | LinearHead],
        score: str,
        k: int | Sequence[int],
        excludes: Sequence[np.ndarray],
        seeds: Sequence[int],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each head's k rows of largest score, best first: ids (k,) int64 and scores (k,) float32.

        `score` is "entropy", "least_confidence", "margin" (see `ray_al.kernels.top_scores.uncertainty`), or "bald",
        the mutual information of label and member in nats (Houlsby et al. 2011) of ensembles (S, C, d), (S, C).
        Ties are broken by the head's seed.

        Raises:
            ValueError: an unknown score, shapes that do not fit, values that are not finite, wrong ids or k.
        """
        ks = [k] * len(heads) if isinstance(k, int) else list(k)
        if not len(heads) == len(ks) == len(excludes) == len(seeds):
            raise ValueError(f"{len(heads)} heads, {len(ks)} k, {len(excludes)} excludes, {len(seeds)} seeds")
        return scores.top(self.rows, [Head(*head) for head in heads], score, ks, excludes, seeds, self.backend)

    def probs(self, head: Head | LinearHead, ids: np.ndarray | slice | None = None) -> np.ndarray:
        """(n, C) float32 class probabilities of rows `ids`, of a slice of them, or of all."""
        return scores.probs(self.rows, Head(*head), ids)

    def kcenter(self, requests: Sequence[KCenterRequest]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Greedy k-center picks of each request: ids (k,) and distances (k,), as `kernels.kcenter` gives them."""
        return kcenter.kcenter_greedy(DeviceEuclidean(self.rows), requests)

    def badge(self, requests: Sequence[BadgeRequest]) -> list[tuple[np.ndarray, np.ndarray]]:
        """BADGE picks of each request: ids (k,) and squared distances (k,), as `kernels.kmeanspp.badge` gives them.

        One after the other: a trajectory's probabilities are its own, so a common pass would save little.
        """
        return [kmeanspp.badge(self.rows, request, self.keep) for request in requests]

    def fit(
        self, problems: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, l2: float = 1.0, tol: float = 1e-7
    ) -> list[LinearHead]:
        """Multinomial logistic regression on rows `ids` with `labels` for each (ids, labels), converged.

        The objective and the tolerance of `ray_al.kernels.logistic.fit_logistic`.

        Raises:
            ValueError: wrong ids or labels, l2 or tol not positive.
            FloatingPointError: no convergence.
        """
        return logistic.fit(self.rows, problems, classes, l2, tol)
