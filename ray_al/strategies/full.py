"""Ask for everything: the accuracy with all labels, an upper bound for the other strategies."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round


@dataclass(frozen=True)
class Full:
    """Runs one round that asks for the whole pool, whatever the protocol."""

    def select(self, round: Round) -> Selection:
        return ask_pool(round.unlabeled)
