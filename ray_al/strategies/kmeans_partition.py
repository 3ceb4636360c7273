"""Equal random draws from each k-means cluster ("geometric sampling", Pourkamali-Anaraki & Wakin 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import stream, subseed


@dataclass(frozen=True)
class KMeansPartition:
    """Clusters a space into `clusters` (None: one per annotation) and draws uniformly within each.

    The clustering is the trajectory's: rounds, or one-shot draws, with as many clusters share it.
    A batch that does not divide evenly gives one more to clusters drawn at random; what a cluster is too small to give
    is drawn at random from the rest.
    """

    clusters: int | None = None
    space: str | None = None

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"kmeans_partition needs clusters >= 1, not {self.clusters}")

    def select(self, round: Round) -> Selection:
        batch = round.take
        clusters = min(self.clusters or batch, round.pool.size)
        assert round.scores is not None
        assignment = round.scores.kmeans(clusters, subseed(stream(round.seed, "clusters")), self.space)  # (N,)
        quota = np.full(clusters, batch // clusters)
        quota[round.rng.permutation(clusters)[: batch % clusters]] += 1
        order = round.rng.permutation(round.unlabeled)  # (U,) a random order decides within every cluster
        own = assignment[order]
        sizes = np.bincount(own, minlength=clusters)
        place = np.empty(len(order), np.int64)  # how many of its cluster come before an item
        place[np.argsort(own, kind="stable")] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = place < quota[own]
        missing = batch - int(chosen.sum())
        chosen[np.flatnonzero(~chosen)[:missing]] = True
        return ask_pool(order[chosen])
