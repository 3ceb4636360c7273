"""Linear heads: what a linear classifier on a shared space is, small enough to travel with every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class LinearHead:
    """softmax(weights @ x + bias) over a space of the pool."""

    space: str
    weights: np.ndarray  # (C, d) float32
    bias: np.ndarray  # (C,) float32


class LinearService(Protocol):
    """Fits and applies linear heads on shared spaces: in this process, or in an actor that holds the rows."""

    def fit_linear(self, space: str, ids: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> LinearHead: ...

    def linear_probs(self, head: LinearHead, ids: np.ndarray | None, split: str) -> np.ndarray: ...  # (n, C) float32
