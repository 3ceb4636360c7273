"""Label propagation on a shared space: a learner without weights (Zhou et al. 2004; Iscen et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ray_al.core.graph_options import check_graph
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels


@dataclass(frozen=True, eq=False)
class PropagatedLabels:
    """Class probabilities of all rows. It knows no others: the graph is over the pool."""

    pool: np.ndarray  # (N, C) float32
    test: np.ndarray  # (M, C) float32

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        if head != "probs":
            raise ValueError(f"label_propagation has no head {head!r}; it has: probs")
        probs = self.pool if split == "pool" else self.test
        return probs if ids is None else probs[ids]


@dataclass(frozen=True)
class LabelPropagation:
    """Labels spread over the pool's kNN graph: Z = (I - alpha W)^-1 Y; probabilities are a row of Z over its sum.

    W is the normalized graph of `k` nearest neighbors by cosine; an edge weighs max(0, cos)^gamma. "union" adds both
    directions, "reciprocal" keeps mutual neighbors alone. Y is 1 at the labels; `balanced` divides by how many labels
    the class has. Items that no label reaches are equally likely of every class.

    The pool is solved as a whole (transductive). A test row, which must not change the graph, gets the mean of its k
    nearest pool items' Z, weighted by the same similarity (inductive; Delalleau, Bengio & Le Roux 2005).

    Graph and solves are the neighbor service's, those of all trajectories that wait in one block. There is one
    solution, so the stream it is handed goes unused. `space` None is the dataset's default space; "hnsw" and "ivf" are
    approximate `index`es for large pools.
    """

    space: str | None = None
    k: int = 50
    graph: str = "union"
    alpha: float = 0.99
    gamma: float = 3.0
    balanced: bool = True
    index: str = "flat"
    neighbors: Any = None  # the neighbor service, set by whoever builds the trajectory

    heads: ClassVar[frozenset[str]] = frozenset({"probs"})

    def __post_init__(self) -> None:
        check_graph("label_propagation", self.k, self.graph, self.alpha, self.gamma, self.index)

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> PropagatedLabels:
        if len(labeled.image_labels):
            raise ValueError("label_propagation learns from pool items only; it cannot use labeled synthetic images")
        if self.neighbors is None:
            raise ValueError("label_propagation needs a service that holds the graph")
        pool_probs, test_probs = self.neighbors.label_probs(
            self.space or next(s for s in pool.spaces if s != "images"),
            min(self.k, pool.size - 1),
            np.concatenate([labeled.ids, assume.ids]),
            np.concatenate([labeled.labels, assume.labels]),
            pool.classes,
            alpha=self.alpha,
            gamma=self.gamma,
            graph=self.graph,
            index=self.index,
            balanced=self.balanced,
        )
        return PropagatedLabels(pool_probs, test_probs)
