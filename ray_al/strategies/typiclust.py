"""TypiClust: typical items of uncovered clusters, for few labels (Hacohen et al. 2022, arXiv 2202.02794)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import stream, subseed


@dataclass(frozen=True)
class TypiClust:
    """Clusters a space into (labels + batch) clusters, at most `max_clusters`; then visits clusters with the fewest
    labels first, larger first among equals, and takes from each its most typical unlabeled item.

    The clustering is the trajectory's: rounds with as many clusters share it. Typicality is the inverse mean distance
    to the nearest `neighbors` items of the same cluster. Clusters of at most `min_cluster_size` items are passed over
    while others remain. The recorded score is the typicality.
    """

    space: str | None = None
    neighbors: int = 20
    max_clusters: int = 500
    min_cluster_size: int = 5

    def __post_init__(self) -> None:
        for name in ("neighbors", "max_clusters"):
            if getattr(self, name) < 1:
                raise ValueError(f"typiclust needs {name} >= 1, not {getattr(self, name)}")

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        batch = round.take
        clusters = min(len(round.labeled.ids) + batch, self.max_clusters, round.pool.size)
        assignment = round.scores.kmeans(clusters, subseed(stream(round.seed, "clusters")), self.space)  # (N,)
        sizes = np.bincount(assignment[assignment >= 0], minlength=clusters)  # items left out of the round have -1
        covered = np.bincount(assignment[round.labeled.ids], minlength=clusters)
        own = assignment[round.unlabeled]
        ends = np.cumsum(np.bincount(own, minlength=clusters))
        members = np.split(round.unlabeled[np.argsort(own, kind="stable")], ends[:-1])  # one array per cluster
        order = np.lexsort((-sizes, covered))  # fewest labels first, then the largest
        large = [c for c in order if sizes[c] > self.min_cluster_size]
        small = [c for c in order if sizes[c] <= self.min_cluster_size]
        picks: list[int] = []
        scores: list[float] = []
        # A pass takes one item of each cluster; a second pass is needed only when the batch exceeds their number.
        for group in (large, small):
            while len(picks) < batch and (group := [c for c in group if len(members[c])]):
                visit = group[: batch - len(picks)]
                values = round.scores.typicality([members[c] for c in visit], self.neighbors, self.space)
                for cluster, typicality in zip(visit, values, strict=True):
                    best = int(np.argmax(typicality))
                    picks.append(int(members[cluster][best]))
                    scores.append(float(typicality[best]))
                    members[cluster] = np.delete(members[cluster], best)
        return ask_pool(np.array(picks, np.int64), np.array(scores))
