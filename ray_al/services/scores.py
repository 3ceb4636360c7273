"""Two `PoolScores`: for linear heads, whose work a pool scorer does, and for models of this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.linear import Linear
from ray_al.services.excerpt import Excerpt
from ray_al.services.shared_rows import SharedRows


@dataclass(frozen=True)
class LinearScores(SharedRows):
    """Bulk reads for a linear head or a committee of them (None before any label: only what needs no model).

    The space that a linear model was fitted on, `default_space`, is its embedding.
    """

    head: Linear | None

    def _need_head(self) -> Linear:
        if self.head is None:
            raise ValueError("this strategy scores with a model, and there is none before any label")
        return self.head

    def top(
        self, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.service.linear_top(self._need_head(), score, k, exclude, seed, among)

    def confident(
        self, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.service.linear_confident(self._need_head(), score, threshold, exclude, among)

    def badge(
        self, k: int, exclude: np.ndarray, seed: int, first: str = "norm", among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.service.linear_badge(self._need_head(), k, exclude, seed, first, among)


@dataclass(frozen=True)
class ModelScores(SharedRows):
    """Bulk reads for a model of this process: its outputs over the pool are computed once and kept for the round.

    Where a strategy names a space, or the model has no embedding, distances are the service's work on shared rows.
    With `among`, ascending ids, the model is asked for these items alone.
    """

    model: Model
    has_embedding: bool

    @cached_property
    def _probs(self) -> np.ndarray:
        return self.model.output("probs")  # (N, C)

    @cached_property
    def _embedding(self) -> np.ndarray:
        return self.model.output("embedding")  # (N, D)

    def _outputs(self, head: str, among: np.ndarray | None) -> np.ndarray:
        if among is not None:
            return self.model.output(head, among)
        if head == "mc_probs":
            return self.model.output(head)  # (T, N, C): large, and read once a round
        return self._probs if head == "probs" else self._embedding

    def _own(self, space: str | None) -> bool:
        return space is None and self.has_embedding

    def shared(self, space: str | None) -> str | None:
        return None if self._own(space) else super().shared(space)

    def top(
        self, score: str, k: int, exclude: np.ndarray, seed: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.top_scores import top_k, uncertainty

        inside = Excerpt.of(among)
        probs = self._outputs("mc_probs" if score == "bald" else "probs", among)
        ids, values = top_k(uncertainty(probs, score), k, inside.rows(exclude), seed)
        return inside.ids(ids), values

    def confident(
        self, score: str, threshold: float, exclude: np.ndarray, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.confident import confident

        inside = Excerpt.of(among)
        probs = self._outputs("probs", among)
        members = self._outputs("mc_probs", among) if score == "bald" else probs
        rows, classes = confident(members, probs, score, threshold, inside.rows(exclude))
        return inside.ids(rows), classes

    def badge(
        self, k: int, exclude: np.ndarray, seed: int, first: str = "norm", among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.kmeanspp import badge

        inside = Excerpt.of(among)
        embedding, probs = self._outputs("embedding", among), self._outputs("probs", among)
        ids, squares = badge(embedding, probs, k, inside.rows(exclude), seed, first=first)
        return inside.ids(ids), squares

    def kcenter(
        self,
        k: int,
        centers: np.ndarray,
        exclude: np.ndarray,
        seed: int,
        space: str | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self._own(space):
            return super().kcenter(k, centers, exclude, seed, space, among)
        from ray_al.kernels.kcenter import kcenter_greedy

        inside, exclude = Excerpt.around(among, centers, exclude)
        embedding = self._outputs("embedding", inside.kept)
        picks, far = kcenter_greedy(embedding, k, inside.rows(centers), inside.rows(exclude), seed)
        return inside.ids(picks), far

    def kmeans(self, clusters: int, seed: int, space: str | None = None, among: np.ndarray | None = None) -> np.ndarray:
        if not self._own(space):
            return super().kmeans(clusters, seed, space, among)
        from ray_al.kernels.kmeans import kmeans

        return kmeans(self._outputs("embedding", among), clusters, seed)[0]

    def typicality(self, groups: list[np.ndarray], neighbors: int, space: str | None = None) -> list[np.ndarray]:
        if not self._own(space):
            return super().typicality(groups, neighbors, space)
        from ray_al.kernels.typicality import typicality

        return typicality(self._embedding, groups, neighbors)
