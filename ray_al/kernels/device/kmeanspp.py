"""BADGE on a device: the steps and the random numbers of `ray_al.kernels.kmeanspp`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels.device.coverage import DeviceCoverage
from ray_al.kernels.device.gradients import DeviceGradients
from ray_al.kernels.device.rows import DeviceRows, taken_ids
from ray_al.kernels.device.scores import Head, Linear, check_head, upload
from ray_al.kernels.drawing import draw

_FIRST = ("norm", "uniform")


class BadgeRequest(NamedTuple):
    """k picks by one trajectory; see `ray_al.kernels.kmeanspp.badge`."""

    head: Head
    k: int
    exclude: np.ndarray
    seed: int
    first: str = "norm"


def badge(rows: DeviceRows, request: BadgeRequest, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (k,) in order of picking and squared distances (k,) float64; `keep` bytes may hold probabilities."""
    if request.first not in _FIRST:
        raise ValueError(f"first is 'norm' or 'uniform', got {request.first!r}")
    check_head(rows, request.head)
    taken = taken_ids(rows.count, request.k, ("exclude", request.exclude))
    if not request.k:
        return np.empty(0, np.int64), np.empty(0)
    weights, bias = upload(rows, [request.head])
    space = DeviceGradients(rows, Linear(rows, weights[0], bias[0]), keep)
    coverage = DeviceCoverage(space, taken, request.seed)
    rng = np.random.default_rng(request.seed)
    free = coverage.best >= 0
    if request.first == "norm":
        free &= space.norms == space.norms[free].amax()
    return draw(_Draws(coverage), request.k, torch.nonzero(free)[:, 0].cpu().numpy(), rng)


class _Draws:
    """A device's coverage with ids and distances as arrays of this processor."""

    def __init__(self, coverage: DeviceCoverage) -> None:
        self._coverage, self._device = coverage, coverage.best.device
        self.totals, self.locate, self.rest = coverage.totals, coverage.locate, coverage.rest

    def cover(self, ids: np.ndarray) -> None:
        self._coverage.cover(torch.from_numpy(ids).to(self._device))

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        return self._coverage.geometry.pairs(torch.from_numpy(ids).to(self._device)).cpu().numpy()
