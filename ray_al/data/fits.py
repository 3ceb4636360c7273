"""First fits as artifacts: fitted by the first trajectory that needs one, and read by the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.core.interfaces import Model, ShareableLearner
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.data.artifacts import ArtifactStore

KIND = "fit"
FILE = "model.bin"
VERSION = 1  # of what a key is made of; a learner's own version is part of `identity`


@dataclass(frozen=True)
class StoredFits:
    """Shares the fits of one learner on one pool by their content (a `ShareFit` of `core.trajectory`).

    Of several trajectories at once, one fits and the others wait for it; the lock of one that is killed is freed by the
    operating system, and the next one fits. Where the storage cannot be written, each fits for itself.
    """

    store: ArtifactStore
    learner: ShareableLearner
    pool: Pool
    identity: Mapping[str, Any]  # plain JSON: the data, the learner and the spaces it reads, by what they hold

    def __call__(
        self, labeled: LabeledSet, assume: PseudoLabels, source: tuple[int, str, int], fit: Callable[[], Model]
    ) -> tuple[Model, bool]:
        config = {
            **self.identity,
            "format": VERSION,
            "stream": list(source),
            "labeled": _digest(labeled.ids, labeled.labels),
            "assumed": _digest(assume.ids, assume.labels),
            "synthetic": _digest(labeled.images, labeled.image_labels),
        }
        fitted: list[tuple[Model, bytes]] = []

        def build(folder: Path) -> None:
            if not fitted:
                model = fit()
                fitted.append((model, self.learner.save(model)))
            (folder / FILE).write_bytes(fitted[0][1])

        try:
            saved = (self.store.get_or_build(KIND, config, build).path / FILE).read_bytes()
        except OSError:  # a full disk, say. Sharing saves time; no trajectory fails for want of it
            return (fitted[0][0] if fitted else fit()), False
        if fitted and fitted[0][1] == saved:
            return fitted[0][0], False
        # Another's, which on other hardware may differ in its last bits: what is stored is what all go on with.
        return self.learner.load(saved, self.pool), True


def _digest(*arrays: np.ndarray | None) -> str:
    """SHA-256 of arrays in their order, shapes and types; "" if all are empty."""
    held = [array for array in arrays if array is not None]
    if not sum(array.size for array in held):
        return ""
    digest = hashlib.sha256()
    for array in held:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
