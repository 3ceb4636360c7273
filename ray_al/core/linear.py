"""Linear heads: what a linear classifier on a shared space is, small enough to travel with every call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class LinearHead:
    """softmax(weights @ x + bias) over a space of the pool."""

    space: str
    weights: np.ndarray  # (C, d) float32
    bias: np.ndarray  # (C,) float32


@dataclass(frozen=True)
class LinearCommittee:
    """Heads of one shape over one space. Its probabilities are the mean of its members', in float32 and their order.

    Raises:
        ValueError: no member, or members of different spaces or shapes.
    """

    space: str
    heads: tuple[LinearHead, ...]

    def __post_init__(self) -> None:
        kinds = {(head.space, head.weights.shape, head.bias.shape) for head in self.heads}
        if len(kinds) != 1 or self.heads[0].space != self.space:
            raise ValueError(f"a committee has heads of one shape over its space {self.space!r}, got {sorted(kinds)}")

    @cached_property
    def weights(self) -> np.ndarray:
        """(T, C, d) float32 of T members."""
        return np.stack([head.weights for head in self.heads])

    @cached_property
    def bias(self) -> np.ndarray:
        """(T, C) float32."""
        return np.stack([head.bias for head in self.heads])


Linear = LinearHead | LinearCommittee


class LinearService(Protocol):
    """Fits and applies linear heads on shared spaces: in this process, or in an actor that holds the rows."""

    def fit_linear(
        self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float, tol: float
    ) -> LinearHead: ...

    def fit_measured(
        self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float, tol: float
    ) -> tuple[LinearHead, dict[str, float] | None]: ...  # and its `linear_metrics`

    def linear_metrics(self, head: Linear) -> dict[str, float] | None: ...  # on the test split, where its labels are

    def linear_probs(self, head: Linear, ids: np.ndarray | None, split: str) -> np.ndarray: ...  # (n, C) float32
