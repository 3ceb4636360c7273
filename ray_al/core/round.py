"""One cycle's read-only view, and its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool

if TYPE_CHECKING:
    from ray_al.core.interfaces import Generator, Model, Neighbors, PoolScores


@dataclass(frozen=True)
class Round:
    """What a strategy sees. `index` is the 0-based cycle whose model this is; -1 before any label exists."""

    index: int
    batch: int  # B, annotations to spend
    pool: Pool
    labeled: LabeledSet
    unlabeled: np.ndarray  # (U,) int64 pool ids, ascending
    model: Model | None  # None before any label
    scores: PoolScores | None  # None before any label, unless services hold the pool
    neighbors: Neighbors | None
    generator: Generator | None
    rng: np.random.Generator
    seed: int = 0  # of the trajectory: for what is drawn once and the same in every round

    @property
    def take(self) -> int:
        """Pool items to ask for: the batch, or what is left of the pool."""
        return min(self.batch, len(self.unlabeled))


@dataclass(frozen=True)
class RoundRecord:
    """One row of the ledger: the round's picks, the metrics of the model trained on them, and what it cost."""

    round: int
    labels: int  # annotations paid so far
    n_labeled: int
    n_synthetic: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    nll: float
    ece: float
    asked_ids: np.ndarray  # (n,) int64, in the order asked
    asked_scores: np.ndarray  # (n,) float64, empty when the strategy gives none
    class_counts: np.ndarray  # (C,) int64 labels per class so far
    assumed_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # pseudo-labeled in this round's fit
    assumed_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    fit_shared: bool = False  # the model was fitted by another trajectory; seconds_fit is then the time to load it
    seconds_fit: float = 0.0
    seconds_select: float = 0.0
    seconds_eval: float = 0.0
