"""A trained 13-layer network as a model: its heads over the pool and the test split."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ray_al.core.pool import Pool
from ray_al.learners.convnet13.features import apply
from ray_al.learners.convnet13.images import Images, Moments
from ray_al.learners.convnet13.network import ConvNet13
from ray_al.learners.networks import repeatable

_BLOCK = 8192  # images on the device at once

Both = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class ConvNet13Model:
    """Heads "probs" (n, C) and "embedding" (n, width), rows of length 1; float32, of unchanged images."""

    net: ConvNet13
    moments: Moments
    pool: Pool
    space: str
    device: torch.device
    threads: int
    whole: dict[str, Both] = field(default_factory=dict)  # both heads of the splits asked for

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        if head not in ("probs", "embedding"):
            raise ValueError(f"convnet13 has no head {head!r}; known: embedding, probs")
        position = 0 if head == "probs" else 1
        if ids is None and split not in self.whole:
            self.whole[split] = self._apply(None, split)
        if split in self.whole:
            values = self.whole[split][position]
            return values if ids is None else values[ids]
        return self._apply(ids, split)[position]

    def _apply(self, ids: np.ndarray | None, split: str) -> Both:
        rows = self.pool.inputs(self.space, ids, split)
        with repeatable(self.threads):
            starts = range(0, max(len(rows), 1), _BLOCK)
            parts = [apply(self.net, Images(rows[at : at + _BLOCK], self.moments, self.device)) for at in starts]
        if len(parts) == 1:
            return parts[0]
        probs, embedding = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        probs.flags.writeable = embedding.flags.writeable = False
        return probs, embedding
