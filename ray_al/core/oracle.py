"""Oracles answer queries with labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_al.core.labeled_set import Answers
from ray_al.core.query import Selection, SyntheticQuery


@dataclass(frozen=True)
class TruthOracle:
    """Answers pool queries with the dataset's own labels; it cannot see images, so synthetic queries are an error."""

    labels: np.ndarray  # (N,) int64

    def answer(self, selection: Selection) -> Answers:
        if any(isinstance(query, SyntheticQuery) for query in selection.ask):
            raise ValueError("the truth oracle answers pool ids only; synthetic images need a classifier oracle")
        ids = selection.pool_ids
        return Answers(ids, np.asarray(self.labels[ids], np.int64), cost=selection.cost)
