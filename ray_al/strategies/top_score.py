"""Uncertainty sampling (Lewis & Gale 1994; Settles 2009): the items the model is least sure of."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import subseed


@dataclass(frozen=True)
class TopScore:
    """The `batch` items of highest `score`: "entropy", "margin" or "least_confidence" of the class probabilities.

    "bald" is the mutual information of the label and the model (Houlsby et al. 2011), of models that have many members.
    """

    score: str

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        ids, scores = round.scores.top(self.score, round.take, round.labeled.ids, subseed(round.rng))
        return ask_pool(ids, scores)
