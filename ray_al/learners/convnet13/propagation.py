"""Pseudo-labels of all images from the labeled ones, over the kNN graph of the network's features."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Propagation:
    """How labels are propagated (Iscen et al. 2019, arXiv 1904.04717): see `Convnet13` for the meaning of each."""

    k: int = 50
    alpha: float = 0.99
    graph: str = "union"
    class_balanced: bool = True
    iterations: int = 20
    tol: float = 1e-6


@dataclass(frozen=True)
class Pseudo:
    """What a propagation found. Where no label arrives the weight is 0; labeled images have their own, and weight 1."""

    labels: np.ndarray  # (N,) int64
    weights: np.ndarray  # (N,) float32 in 0..1, the largest being 1
    graph_seconds: float
    solve_seconds: float


def propagate(
    features: torch.Tensor, ids: np.ndarray, labels: np.ndarray, classes: int, how: Propagation
) -> Pseudo:  # fmt: skip
    """Pseudo-labels from features (N, d), rows of length 1, and the labels of the rows `ids`.

    On a GPU all of it stays there; on a CPU the compiled kernels do it.
    """
    return (_on_gpu if features.is_cuda else _on_cpu)(features, ids, labels, classes, how)


def _on_cpu(features: torch.Tensor, ids: np.ndarray, labels: np.ndarray, classes: int, how: Propagation) -> Pseudo:
    from ray_al.kernels.affinity import affinity
    from ray_al.kernels.label_propagation import solve
    from ray_al.kernels.neighbors import build_index, graph_blocks
    from ray_al.kernels.pseudo_labels import label_sources, pseudo_labels

    rows = features.numpy()
    started = time.perf_counter()
    parts = list(graph_blocks(build_index(rows), rows, min(how.k, len(rows) - 1)))
    near, far = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    weights = affinity(near, far, graph=how.graph)
    built = time.perf_counter()
    request = label_sources(ids, labels, classes, how.alpha, how.tol, how.iterations, how.class_balanced)
    best, sure = pseudo_labels(solve(weights, [request])[0], ids, labels)
    return Pseudo(best, sure, built - started, time.perf_counter() - built)


def _on_gpu(features: torch.Tensor, ids: np.ndarray, labels: np.ndarray, classes: int, how: Propagation) -> Pseudo:
    from ray_al.kernels.device import propagation as device

    where, count = features.device, len(features)
    given, answers = (torch.from_numpy(np.asarray(part)).to(where) for part in (ids, labels))
    torch.cuda.synchronize(where)
    started = time.perf_counter()
    weights = device.affinity(*device.nearest(features, min(how.k, count - 1)), graph=how.graph)
    torch.cuda.synchronize(where)
    built = time.perf_counter()
    y = device.sources(given, answers, count, classes, how.class_balanced)
    z = device.solve(weights, y, how.alpha, how.tol, how.iterations)
    best, sure = (part.cpu().numpy() for part in device.pseudo_labels(z, given, answers))
    return Pseudo(best, sure, built - started, time.perf_counter() - built)
