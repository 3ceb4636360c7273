"""Candidate restriction: any strategy, looking at some of the unlabeled items only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ray_al.core.interfaces import PoolScores, Strategy
from ray_al.core.query import Selection
from ray_al.core.round import Round

INDEXES = ("flat", "hnsw", "ivf")


class Candidates(Protocol):
    """Which unlabeled items a strategy may choose among in a round; a function of the round alone."""

    def candidates(self, round: Round) -> np.ndarray:
        """(m,) distinct ids of `round.unlabeled`, ascending; any number of them. There are labels when it is asked."""
        ...


@dataclass(frozen=True)
class Seals:
    """The `k` nearest neighbors of everything labeled (SEALS; Coleman et al. 2022, arXiv 2007.00077).

    `space` None measures in the first space of vectors that the trajectory reads. `index`: "flat" is exact; "hnsw" and
    "ivf" are approximate, for pools of millions.
    """

    k: int = 100
    space: str | None = None
    index: str = "flat"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"candidates seals needs k >= 1, not {self.k}")
        if self.index not in INDEXES:
            raise ValueError(f"candidates seals takes index: flat, hnsw or ivf, not {self.index!r}")

    def candidates(self, round: Round) -> np.ndarray:
        assert round.neighbors is not None
        space = self.space or next(s for s in round.pool.spaces if s != "images")
        k = min(self.k, round.pool.size - 1)
        near = np.unique(round.neighbors.of(space, np.sort(round.labeled.ids), k, self.index))
        return near[_inside(near, round.unlabeled)]


@dataclass(frozen=True)
class Restricted:
    """`strategy` over the items that `candidates` allows.

    When these are fewer than the round asks for, items drawn at random from the other unlabeled ones join them. Before
    any label nothing is restricted.
    """

    strategy: Strategy
    candidates: Candidates

    def select(self, round: Round) -> Selection:
        if not len(round.labeled.ids):
            return self.strategy.select(round)
        allowed = self.candidates.candidates(round)
        missing = round.take - len(allowed)
        if missing > 0:
            others = np.setdiff1d(round.unlabeled, allowed, assume_unique=True)
            allowed = np.sort(np.concatenate([allowed, round.rng.choice(others, missing, replace=False)]))
        scores = None
        if round.scores is not None:
            scores = RestrictedScores(round.scores, allowed, np.sort(round.labeled.ids), round.pool.size)
        return self.strategy.select(dataclasses.replace(round, unlabeled=allowed, scores=scores))


@dataclass(frozen=True)
class RestrictedScores:
    """Bulk reads over the items `allowed` (ascending ids): of `scores`, with that said in every call."""

    scores: PoolScores
    allowed: np.ndarray  # (m,) ascending
    labeled: np.ndarray  # (n,) ascending
    size: int  # N

    def top(
        self, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.scores.top(score, k, exclude, seed, among=self._within(among))

    def confident(
        self, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.scores.confident(score, threshold, exclude, among=self._within(among))

    def kcenter(
        self,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        space: str | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.scores.kcenter(k, centers, exclude, seed, space, among=self._within(among))

    def badge(
        self, k: int, exclude: np.ndarray, seed: int, first: str = "norm", among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.scores.badge(k, exclude, seed, first, among=self._within(among))

    def shared(self, space: str | None) -> str | None:
        return self.scores.shared(space)

    def kmeans(self, clusters: int, seed: int, space: str | None = None, among: np.ndarray | None = None) -> np.ndarray:
        """(N,) int32 cluster of the allowed and the labeled items, -1 of all others; or (m,) of the items `among`.

        The labeled ones take part, since strategies ask which clusters they cover. There are at most as many clusters
        as items.
        """
        if among is not None:
            return self.scores.kmeans(clusters, seed, space, among)
        items = np.union1d(self.allowed, self.labeled)
        assignment = np.full(self.size, -1, np.int32)
        assignment[items] = self.scores.kmeans(min(clusters, len(items)), seed, space, among=items)
        return assignment

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        return self.scores.typicality(groups, neighbors, space)

    def _within(self, among: np.ndarray | None) -> np.ndarray:
        return self.allowed if among is None else among[_inside(among, self.allowed)]


def _inside(ids: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the ids occur among some that are in ascending order."""
    if not len(ascending):
        return np.zeros(len(ids), bool)
    return ascending[np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)] == ids
