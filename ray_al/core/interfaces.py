"""The contracts between the loop, strategies, learners and services. Arrays are numpy.

N pool items, U unlabeled, B batch, C classes, D features.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels, Selection
from ray_al.core.round import Round


class Strategy(Protocol):
    """The query strategy. `select` spends at most `round.batch` annotations and changes nothing of the round."""

    def select(self, round: Round) -> Selection: ...


class Model(Protocol):
    """A fitted learner. `output("probs")` always exists; other heads as the learner declares them.

    One whose outputs are made in another process may have `test_metrics()`: what `classification_metrics` gives for its
    test probabilities, which then need not travel, or None.
    """

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        """Head values for rows `ids` of a split (all when None): "probs" is (n, C), "embedding" (n, D).

        "mc_probs" (T, n, C) are those of T members, or of T draws, of which "probs" is the mean.
        """
        ...


class Learner(Protocol):
    """Fits models; lives for one trajectory. Fresh weights each round come from the stream it is handed."""

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model: ...


@runtime_checkable
class StatefulLearner(Protocol):
    """A learner that carries weights from round to round. Its state is stored beside each ledger part."""

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model: ...

    def state(self) -> bytes:
        """Everything the next `fit` depends on, without pickle (npy, safetensors, JSON)."""
        ...

    def restore(self, state: bytes, pool: Pool) -> Model:
        """Take back a state and return the model of the round it was taken in."""
        ...


@runtime_checkable
class ShareableLearner(Protocol):
    """A learner whose models can be written down, so that a fit that several trajectories need is done once.

    A loaded model's outputs equal those of the model that was saved, bit for bit, and a fit depends on its arguments
    alone: a learner that carries weights from round to round (`StatefulLearner`) is not shared, unless its class says
    `starts_afresh = True`. That it pays is said by `share_fits` in its row of the table, or of its class.
    """

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model: ...

    def save(self, model: Any) -> bytes:
        """A model that `fit` returned, without pickle (npy, safetensors, JSON)."""
        ...

    def load(self, saved: bytes, pool: Pool) -> Model:
        """The model that `save` was given; ValueError for bytes of anything else."""
        ...


class PoolScores(Protocol):
    """Bulk reads over the pool, in this process or by actors. Every answer holds pool ids.

    `exclude` are pool ids that may not be returned (usually the labeled ones); `space` None means the model's own
    embedding, or the learner's space. Ties are broken at random by `seed`. With `among`, pool ids in ascending order,
    only these items are read and returned, so that a call costs as much as they are many.
    """

    def top(
        self, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k ids of highest "entropy", "least_confidence", "margin" or "bald", best first, and their scores."""
        ...

    def confident(
        self, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids, ascending, of the items whose score (as in `top`) is at most `threshold`; their likeliest classes."""
        ...

    def kcenter(
        self,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        space: str | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Greedy k-center picks in order, and the distance of each to its nearest center when it was picked.

        Centers cover from wherever they are, `among` or not.
        """
        ...

    def badge(
        self, k: int, exclude: np.ndarray, seed: int, first: str = "norm", among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """k-means++ picks in the gradient embedding of the last layer, and their squared distances when picked.

        `first`: the first pick has the largest "norm", or is "uniform".
        """
        ...

    def shared(self, space: str | None) -> str | None:
        """The shared space that `space` means; None where distances are in the embedding of a model of this process."""
        ...

    def kmeans(self, clusters: int, seed: int, space: str | None = None, among: np.ndarray | None = None) -> np.ndarray:
        """(N,) int32 cluster of every pool item, or (m,) of the m items `among`."""
        ...

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        """Inverse mean distance of each item to its nearest `neighbors` within its own group (arrays of pool ids)."""
        ...


class Neighbors(Protocol):
    """Nearest neighbors in a space of vectors, Euclidean.

    `index` says how they are searched: "flat" is exact; "hnsw" (a hierarchical graph) and "ivf" (inverted lists) are
    approximate and many times faster on large pools. An answer depends on the arguments alone, so a strategy that
    offers the choice makes it one of its options: then it is part of the identity of its results.
    """

    def nearest(self, space: str, queries: np.ndarray, exclude: np.ndarray, index: str = "flat") -> np.ndarray:
        """(q,) distinct pool ids: each query's nearest item that is neither excluded nor taken by an earlier query."""
        ...

    def of(self, space: str, ids: np.ndarray, k: int, index: str = "flat") -> np.ndarray:
        """(n, k) pool ids: the k nearest others of each of the pool items `ids`, nearest first."""
        ...

    def graph(self, space: str, k: int, index: str = "flat") -> tuple[np.ndarray, np.ndarray]:
        """(N, k) ids and distances of every item's k nearest others, nearest first; itself left out by id.

        Built once per space and stored: exact, that takes time in proportion to N^2.
        """
        ...

    def jlp(
        self,
        space: str,
        k: int,
        labeled: np.ndarray,
        allowed: np.ndarray,
        count: int,
        seed: int,
        alpha: float = 0.99,
        gamma: float = 3.0,
        graph: str = "union",
        index: str = "flat",
    ) -> tuple[np.ndarray, np.ndarray]:
        """`count` of the items `allowed` in order, each the one that labels spread over the graph reach least, given
        those labeled and those picked before it; and how far they reached it. Ties are broken at random by `seed`."""
        ...

    def label_probs(
        self, space: str, k: int, ids: np.ndarray, labels: np.ndarray, classes: int, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) and (M, C) class probabilities of pool and test rows, from labels that spread over the graph."""
        ...


class Generator(Protocol):
    """Decodes latent vectors to images, differentiably where the framework allows."""

    def decode(self, z: np.ndarray) -> np.ndarray: ...
