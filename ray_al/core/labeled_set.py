"""What the oracle has answered so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _no_ids() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Answers:
    """The oracle's reply to one selection. `cost` counts annotations paid, abstentions included."""

    ids: np.ndarray = field(default_factory=_no_ids)  # (n,) pool ids that were labeled
    labels: np.ndarray = field(default_factory=_no_ids)  # (n,)
    images: np.ndarray | None = None  # (m, ...) synthetic images that were labeled
    image_labels: np.ndarray = field(default_factory=_no_ids)  # (m,)
    cost: int = 0


@dataclass(frozen=True)
class LabeledSet:
    """Labeled pool items and labeled synthetic images, kept apart. Immutable: `add` gives a new one."""

    ids: np.ndarray = field(default_factory=_no_ids)  # (n,) pool ids, in the order asked
    labels: np.ndarray = field(default_factory=_no_ids)  # (n,)
    images: np.ndarray | None = None  # (m, ...) synthetic
    image_labels: np.ndarray = field(default_factory=_no_ids)  # (m,)
    cost: int = 0  # annotations paid

    def __len__(self) -> int:
        return len(self.ids) + len(self.image_labels)

    def add(self, answers: Answers) -> LabeledSet:
        images = self.images
        if answers.images is not None:
            images = answers.images if images is None else np.concatenate([images, answers.images])
        return LabeledSet(
            np.concatenate([self.ids, answers.ids]),
            np.concatenate([self.labels, answers.labels]),
            images,
            np.concatenate([self.image_labels, answers.image_labels]),
            self.cost + answers.cost,
        )
