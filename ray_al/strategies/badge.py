"""BADGE: diverse gradient embeddings (Ash et al. 2020, arXiv 1906.03671)."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import subseed


@dataclass(frozen=True)
class Badge:
    """k-means++ on the last layer's gradients under the predicted label, never materialized.

    `first` is how the first item is chosen: by the largest gradient "norm", as the authors' released code does, or
    "uniform", as plain k-means++ does. The recorded score is the squared distance at the time of the pick.
    """

    first: str = "norm"

    def __post_init__(self) -> None:
        if self.first not in ("norm", "uniform"):
            raise ValueError(f"badge takes first: norm or uniform, not {self.first!r}")

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        ids, distances = round.scores.badge(round.take, round.labeled.ids, subseed(round.rng), self.first)
        return ask_pool(ids, distances)
