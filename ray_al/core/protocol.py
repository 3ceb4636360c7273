"""How labels are spent: round by round, or in draws that start from nothing each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_al.core.seeds import stream


@dataclass(frozen=True)
class Protocol:
    """`initial` labels first, then `batch` a round; `rounds` models are trained in all.

    `initial` 0 leaves the first batch to the strategy (cold start). Labels at the end: initial + (rounds-1) * batch,
    or rounds * batch from a cold start.

    With `budgets` (see `one_shot`) round i is a draw of its own: budgets[i] labels out of the whole pool, chosen
    without a model, and a model fitted on them alone.
    """

    initial: int = 10
    balanced: bool = True
    batch: int = 10  # of one-shot draws: the largest
    rounds: int = 10
    budgets: tuple[int, ...] = ()

    @classmethod
    def one_shot(cls, budgets: tuple[int, ...]) -> Protocol:
        """One round per budget, in ascending order."""
        return cls(0, False, max(budgets), len(budgets), budgets)

    @property
    def total_labels(self) -> int:
        """The most labels that a model is trained on."""
        if self.budgets:
            return max(self.budgets)
        return (self.initial or self.batch) + (self.rounds - 1) * self.batch

    @property
    def label(self) -> str:
        """Initial labels + batches x batch size, as papers write it: "10+9x10"; of draws: "one-shot 20..200"."""
        if self.budgets:
            return f"one-shot {self.budgets[0]}" + (f"..{self.budgets[-1]}" if len(self.budgets) > 1 else "")
        batches = self.rounds - 1 if self.initial else self.rounds
        return f"{self.initial}+{batches}x{self.batch}" + ("" if self.balanced or not self.initial else " unbalanced")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides results, as plain JSON. Fields that came later are left out where they say nothing."""
        if self.budgets:
            return {"budgets": list(self.budgets)}
        return {"initial": self.initial, "balanced": self.balanced, "batch": self.batch, "rounds": self.rounds}


def initial_ids(truth: np.ndarray, classes: int, protocol: Protocol, seed: int) -> np.ndarray:
    """The first labeled ids: a function of dataset, protocol and seed, the same for every strategy and learner.

    Balanced sets take initial // classes of each class, and one more of classes drawn at random for the rest.

    Raises:
        ValueError: a class has too few items for a balanced set.
    """
    rng = stream(seed, "initial")
    if not protocol.balanced:
        return rng.permutation(len(truth))[: protocol.initial]
    quota = np.full(classes, protocol.initial // classes)
    quota[rng.permutation(classes)[: protocol.initial % classes]] += 1
    picks = []
    for label in range(classes):
        members = np.flatnonzero(truth == label)
        if len(members) < quota[label]:
            raise ValueError(f"class {label} has {len(members)} items; a balanced initial set needs {quota[label]}")
        picks.append(rng.permutation(members)[: quota[label]])
    return rng.permutation(np.concatenate(picks))
