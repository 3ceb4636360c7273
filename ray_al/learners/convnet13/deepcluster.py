"""Pre-training without labels: DeepCluster (Caron et al. 2018, arXiv 1807.05520) as Simeoni et al. run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_al.core.seeds import subseed
from ray_al.learners.convnet13.features import features
from ray_al.learners.convnet13.images import Images
from ray_al.learners.convnet13.network import body_of, make_network, reset_head
from ray_al.learners.convnet13.optimizer import Sgd, cosine
from ray_al.learners.convnet13.sampling import passes
from ray_al.learners.convnet13.steps import Batches, Stepper

ITERATIONS = 10  # of k-means, as the released code has it


@dataclass(frozen=True)
class Clustering:
    """How a network is pre-trained. `clusters` are five times the classes in the released code."""

    clusters: int
    width: int = 128
    epochs: int = 250
    lr: float = 0.02
    schedule: str = "constant"  # or "cosine", which reaches 0 at the last epoch
    batch: int = 128
    precision: torch.dtype = torch.float32


def deepcluster(
    images: Images, how: Clustering, rng: np.random.Generator, report: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, torch.Tensor]:
    """The weights of all layers but the last, pre-trained on all images.

    In every epoch the features are clustered anew, from new seeds; the clusters are the classes of one pass over the
    images. Since their numbers mean something else every time, the last layer starts afresh. `report` is told of each
    epoch: its loss, how far its clusters agree with those of the epoch before, and seconds.

    Raises:
        ValueError: fewer images than clusters.
        FloatingPointError: the loss is not finite.
    """
    init, order, shifts, noise, seeds = (np.random.default_rng(subseed(rng)) for _ in range(5))
    device = images.pixels.device
    net = make_network(how.clusters, how.width, how.precision, init).to(device)
    net.noise = torch.Generator(device).manual_seed(subseed(noise))
    optimizer = Sgd(net, net.head)
    batch = min(how.batch, len(images))
    stepper = Stepper(net, optimizer, images, batch, shifts)
    steps = len(images) // batch
    rates = np.full((how.epochs, steps), how.lr)
    if how.schedule == "cosine":
        rates = cosine(how.lr, how.epochs, steps, how.epochs)
    before = np.zeros(len(images), np.int64)
    for epoch in range(how.epochs):
        started = time.perf_counter()
        clusters = clustered_rows(features(net, images), how.clusters, subseed(seeds))
        clustered = time.perf_counter()
        reset_head(net, init)
        optimizer.forget_last()
        rows = passes(len(images), batch, order)
        batches = Batches(rows, clusters[rows], np.ones(rows.shape, np.float32), rates[epoch])
        loss = stepper.epoch(batches, f"DeepCluster epoch {epoch + 1}")
        if report:
            spent = {"seconds": time.perf_counter() - started, "cluster_seconds": clustered - started}
            report({"stage": "pre", "epoch": epoch, "loss": loss, "agreement": agreement(before, clusters), **spent})
        before = clusters
    return body_of(net)


def clustered_rows(found: torch.Tensor, clusters: int, seed: int) -> np.ndarray:
    """(N,) int64 cluster of every row; by the device's kernel on a GPU, by the compiled one elsewhere."""
    if found.is_cuda:
        from ray_al.kernels.device.kmeans import kmeans

        return kmeans(found, clusters, seed, ITERATIONS)[0].cpu().numpy()
    from ray_al.kernels.kmeans import kmeans as compiled_kmeans

    return compiled_kmeans(found.numpy(), clusters, seed, ITERATIONS, tol=0, momentum=0)[0].astype(np.int64)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Normalized mutual information of two clusterings (n,), by the geometric mean of their entropies; 0 of a trivial
    one. 1 means that they are the same up to their numbers.
    """
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1 / len(a))
    own, other = table.sum(1), table.sum(0)
    apart = np.outer(own, other)
    shared = float((table[table > 0] * np.log(table[table > 0] / apart[table > 0])).sum())
    spread = [float(-(part[part > 0] * np.log(part[part > 0])).sum()) for part in (own, other)]
    return shared / np.sqrt(spread[0] * spread[1]) if min(spread) > 0 else 0.0
