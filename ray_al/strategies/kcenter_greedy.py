"""Greedy k-center, the greedy form of core-set selection (Sener & Savarese 2018, arXiv 1708.00489)."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import subseed


@dataclass(frozen=True)
class KCenterGreedy:
    """Picks, one after another, the item farthest from all labeled and picked items, Euclidean.

    `space` None takes distances in the model's embedding (for linear models: their input space). The recorded score is
    the distance to the nearest center at the time of the pick.
    """

    space: str | None = None

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        ids, distances = round.scores.kcenter(
            round.take, round.labeled.ids, round.labeled.ids, subseed(round.rng), self.space
        )
        return ask_pool(ids, distances)
