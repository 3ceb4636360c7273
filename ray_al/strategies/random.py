"""Uniform random sampling: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round


@dataclass(frozen=True)
class Random:
    """Draws the batch uniformly, without replacement."""

    def select(self, round: Round) -> Selection:
        return ask_pool(round.rng.permutation(round.unlabeled)[: round.take])
