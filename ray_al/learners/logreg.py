"""Multinomial logistic regression on a shared space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.linear import Linear, LinearService
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels


@dataclass(frozen=True)
class LinearModel:
    """A linear head and the service that applies it. Its embedding is its input space."""

    linear: Linear
    service: LinearService
    pool: Pool
    metrics: Mapping[str, float] | None = None  # of the test split, where they are known

    def test_metrics(self) -> Mapping[str, float] | None:
        if type(self) is not LinearModel:  # a derived model's output may be another than its head's
            return None
        return self.metrics or self.service.linear_metrics(self.linear)

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        if head == "probs":
            return self.service.linear_probs(self.linear, ids, split)
        if head == "embedding":
            return np.asarray(self.pool.inputs(self.linear.space, ids, split), np.float32)
        raise ValueError(f"logreg has no head {head!r}; it has: embedding, probs")


def check_tol(learner: str, tol: float) -> None:
    """Raise ValueError unless fits can get there, and are fits."""
    if not 1e-9 <= tol <= 0.1:
        raise ValueError(f"{learner} needs a tol of 1e-9 to 0.1, not {tol}")


@dataclass(frozen=True)
class LogReg:
    """Softmax regression with penalty l2/2 * |W|^2 on the summed log-loss; the bias is free.

    The same objective as scikit-learn's LogisticRegression(C=1/l2). It has one solution, so the stream it is handed
    goes unused. `space` None is the dataset's default space. A fit ends when the gradient, in preconditioned
    coordinates, is at most `tol` times that at zero; by default probabilities are then within about 1e-5 of exact.
    """

    space: str | None = None
    l2: float = 1.0
    tol: float = 1e-7
    service: LinearService | None = None  # set by whoever builds the trajectory

    heads: ClassVar[frozenset[str]] = frozenset({"probs", "embedding"})

    def __post_init__(self) -> None:
        if not 0 < self.l2 < 1e12:
            raise ValueError(f"logreg needs 0 < l2 < 1e12, not {self.l2}")
        check_tol("logreg", self.tol)

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> LinearModel:
        if len(labeled.image_labels):
            raise ValueError("logreg learns from pool items only; it cannot use labeled synthetic images")
        if self.service is None:
            raise ValueError("logreg needs a service that fits linear heads")
        ids = np.concatenate([labeled.ids, assume.ids])
        labels = np.concatenate([labeled.labels, assume.labels])
        space = self.space or pool.spaces[0]
        head, metrics = self.service.fit_measured(space, ids, labels, pool.classes, self.l2, self.tol)
        return LinearModel(head, self.service, pool, metrics)
