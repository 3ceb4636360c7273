"""CEAL: ask for the uncertain, assume the certain (Wang et al. 2017, arXiv 1701.03551), as Simeoni et al. 2019 use it.

The released code of the latter (arXiv 1911.08177) looks pseudo-labels up by position where it means pool ids, and never
trains on them; here they are pool items with their own predictions.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from ray_al.core.interfaces import Strategy
from ray_al.core.query import PseudoLabels, Selection
from ray_al.core.round import Round


@dataclass(frozen=True)
class Ceal:
    """What `base` asks for; besides, the unlabeled items with entropy of at most eps = `threshold` - `decay` * cycle
    are assumed to be of their likeliest class, in the next fit only.

    The entropy is over log C, so it lies in 0..1. The cycle is that of the model which is asked, from 0. Below 0, eps
    lets nothing in.
    """

    base: Strategy
    threshold: float = 0.1
    decay: float = 0.00033

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"ceal needs a threshold in 0..1, not {self.threshold}")
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"ceal needs decay >= 0, not {self.decay}")

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        asked = self.base.select(round)
        limit = (self.threshold - self.decay * round.index) * math.log(max(round.pool.classes, 2))  # in nats
        taken = np.concatenate([round.labeled.ids, asked.pool_ids])
        ids, labels = round.scores.confident("entropy", limit, taken)
        return dataclasses.replace(asked, assume=PseudoLabels(ids, labels))
