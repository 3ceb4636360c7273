"""k-means++ sampling on a device: the steps and the random numbers of `ray_al.kernels.kmeanspp`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels.device.coverage import DeviceCoverage
from ray_al.kernels.device.gradients import DeviceGradients
from ray_al.kernels.device.rows import DeviceRows, taken_ids
from ray_al.kernels.device.scores import Head, Linear, check_head, upload

_PROPOSALS = 256
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
    start = torch.nonzero(free)[:, 0]
    first = int(start[int(rng.choice(len(start)))])
    return _draw(coverage, request.k, first, rng)


def _draw(coverage: DeviceCoverage, k: int, first: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """k items by k-means++ from `first`, exactly, by rejection.

    Proposals are drawn from the distances of the last full pass and accepted with probability true / proposed
    distance. True distances need only the proposals' own pairs, since every pick since that pass is one of them.
    """
    ids, squares = np.empty(k, np.int64), np.full(k, np.inf)
    ids[0] = first
    done, passed = 1, 0
    device = coverage.best.device
    while done < k:
        coverage.cover(torch.from_numpy(ids[passed:done]).to(device))
        passed = done
        totals = np.cumsum(coverage.totals())
        if totals[-1] == 0:
            ids[done:], squares[done:] = rng.choice(coverage.rest(), k - done, replace=False), 0
            break
        block = np.searchsorted(totals, rng.random(_PROPOSALS) * totals[-1], side="right")
        # Rounding may carry u * total up to the total itself: the last block of positive weight.
        block = np.minimum(block, np.searchsorted(totals, totals[-1], side="left"))
        proposals, proposed = coverage.locate(block, rng.random(_PROPOSALS))
        table = coverage.geometry.pairs(torch.from_numpy(proposals).to(device)).cpu().numpy()
        accepted, distances = _accept(table, proposed, proposals, k - done, rng)
        ids[done : done + len(accepted)], squares[done : done + len(accepted)] = accepted, distances
        done += len(accepted)
    return ids, squares


def _accept(
    table: np.ndarray, proposed: np.ndarray, ids: np.ndarray, k: int, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Go through the proposals in order; the first is always accepted, later ones by what is left of their distance."""
    left = proposed.copy()
    bars = rng.random(len(ids)) * proposed
    accepted: list[int] = []
    distances: list[float] = []
    for row in range(len(ids)):
        if bars[row] < left[row] and len(accepted) < k:
            accepted.append(int(ids[row]))
            distances.append(float(left[row]))
            left = np.minimum(left, table[row])
            left[ids == ids[row]] = 0
    return accepted, distances
