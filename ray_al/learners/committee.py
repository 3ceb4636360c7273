"""A committee of softmax regressions, each fitted on a bootstrap resample of the labeled set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.linear import LinearCommittee, LinearService
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.learners.logreg import LinearModel, check_tol


@dataclass(frozen=True)
class CommitteeModel:
    """A committee and the service that applies it: its probabilities are the mean of its members'."""

    linear: LinearCommittee
    service: LinearService
    pool: Pool

    def test_metrics(self) -> Mapping[str, float] | None:
        return self.service.linear_metrics(self.linear) if type(self) is CommitteeModel else None

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        if head == "mc_probs":
            members = [self.service.linear_probs(member, ids, split) for member in self.linear.heads]
            return np.stack(members)  # (T, n, C)
        if head not in LogRegCommittee.heads:
            known = ", ".join(sorted(LogRegCommittee.heads))
            raise ValueError(f"logreg_committee has no head {head!r}; it has: {known}")
        return LinearModel(self.linear, self.service, self.pool).output(head, ids, split)


@dataclass(frozen=True)
class LogRegCommittee:
    """Query by bagging (Abe & Mamitsuka 1998): `members` of `logreg`, apart by the labels that each was fitted on.

    A member's labels are as many draws with replacement as there are labels, and one more of each class that the draws
    missed, its item drawn at random: so no member holds a class for impossible that has been seen, and members differ
    even when there is one label of each class. Pseudo-labels are drawn like labels. `space`,
    `l2` and `tol` are those of `logreg`.
    """

    members: int = 5
    space: str | None = None
    l2: float = 1.0
    tol: float = 1e-7
    service: LinearService | None = None  # set by whoever builds the trajectory

    heads: ClassVar[frozenset[str]] = frozenset({"probs", "embedding", "mc_probs"})

    def __post_init__(self) -> None:
        if not 2 <= self.members <= 1000:
            raise ValueError(f"logreg_committee needs 2 to 1000 members, not {self.members}")
        if not 0 < self.l2 < 1e12:
            raise ValueError(f"logreg_committee needs 0 < l2 < 1e12, not {self.l2}")
        check_tol("logreg_committee", self.tol)

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> CommitteeModel:
        if len(labeled.image_labels):
            raise ValueError("logreg_committee learns from pool items only; it cannot use labeled synthetic images")
        if self.service is None:
            raise ValueError("logreg_committee needs a service that fits linear heads")
        ids = np.concatenate([labeled.ids, assume.ids])
        labels = np.concatenate([labeled.labels, assume.labels])
        space = self.space or pool.spaces[0]
        samples = [resample(labels, rng) for _ in range(self.members)]
        heads = [self.service.fit_linear(space, ids[s], labels[s], pool.classes, self.l2, self.tol) for s in samples]
        return CommitteeModel(LinearCommittee(space, tuple(heads)), self.service, pool)


def resample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of n draws from the n labels, with replacement, and of one item of each class that these missed."""
    drawn = rng.integers(len(labels), size=len(labels))
    missed = np.setdiff1d(labels, labels[drawn])
    members = [np.flatnonzero(labels == label) for label in missed]
    return np.concatenate([drawn, np.array([rows[rng.integers(len(rows))] for rows in members], np.int64)])
