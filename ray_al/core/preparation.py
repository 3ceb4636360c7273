"""What a learner needs to be made once, before its first fit, and shared by all trajectories that need the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Preparation:
    """Arrays made of the pool's rows in one space, without labels: pre-trained weights, for example.

    They are kept as an artifact of this kind, config and space. A learner reads them as it reads a space, by
    `pool.reader.read(preparation.name, array)`.
    """

    kind: str
    config: dict[str, Any]  # plain JSON: all that decides the arrays, besides the rows; it has a "version" of its own
    space: str
    build: Callable[[np.ndarray, dict[str, Any]], Arrays]  # (rows (N, ...), config) -> arrays by name

    @property
    def name(self) -> str:
        text = json.dumps([self.kind, self.config, self.space], sort_keys=True)
        return f"{self.kind}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@runtime_checkable
class PreparedLearner(Protocol):
    """A learner that may need a preparation; None: it needs none."""

    def preparation(self, classes: int) -> Preparation | None: ...
