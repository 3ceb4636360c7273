"""Options that choose or change rows of any dataset: class subset, imbalance, limit, label noise, test split."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ray_al.core.seeds import stream
from ray_al.data.faults import Check, distinct_classes, number, whole

# Each choice draws from a stream of its own, so adding one option never changes what another one drew.
_SPLIT, _LIMIT, _IMBALANCE = 0, 1, 2


@dataclass(frozen=True)
class Options:
    """What is done to the rows after loading, in this order: test split, classes, imbalance, limit, label noise.

    `classes` acts on both splits and relabels them 0..k-1 in its own order; all others but the test split change the
    pool only, so the test split stays whole and clean.
    """

    classes: tuple[int, ...] | None = None
    imbalance: float = 1.0  # items of the most common class per item of the rarest
    limit: int | None = None  # pool items
    label_noise: float = 0.0  # fraction of pool labels replaced by another class
    subset_seed: int = 0  # of imbalance, limit and label noise
    test_fraction: float | None = None  # only for data without a test split; None means 0.2
    split_seed: int = 0  # of that split

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, as YAML would give them."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}


OPTION_CHECKS: dict[str, Check] = {
    "classes": distinct_classes,
    "imbalance": number(1, 1e6),
    "limit": whole(2, 10**12),
    "label_noise": number(0, 1, open_high=True),
    "subset_seed": whole(0, 2**63 - 1),
    "test_fraction": number(0, 1, open_low=True, open_high=True),
    "split_seed": whole(0, 2**63 - 1),
}


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pool rows, test rows), ascending: of each class, the same `fraction` (rounded) goes to the test split.

    A class keeps at least one row in the pool, and gives at least one to the test split when it has two or more.
    """
    rng = stream(seed, "split", _SPLIT)
    test = np.zeros(len(labels), bool)
    for label in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        test[members[: max(0, count)]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def limit_rows(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """(limit,) rows, ascending: a stratified draw in which smaller limits are subsets of larger ones.

    Every class is in it when `limit` is at least the number of classes.
    """
    rng = stream(seed, "split", _LIMIT)
    place = np.empty(len(labels))  # share of its class that comes before a row: 0 for the first of each class
    for label in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = np.arange(len(members)) / len(members)
    order = np.lexsort((rng.random(len(labels)), place))
    return np.sort(order[:limit])


def imbalanced_rows(labels: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Rows, ascending, of a long tail (Cui et al. 2019): class c of C keeps n_max * ratio ** (-c / (C - 1)) items."""
    rng = stream(seed, "split", _IMBALANCE)
    counts = np.bincount(labels)
    keep = []
    for label, count in enumerate(counts):
        quota = round(counts.max() * ratio ** (-label / max(1, len(counts) - 1)))
        keep.append(rng.permutation(np.flatnonzero(labels == label))[: min(count, max(1, quota))])
    return np.sort(np.concatenate(keep))


def noisy_labels(labels: np.ndarray, classes: int, fraction: float, seed: int) -> np.ndarray:
    """Symmetric noise: round(fraction * N) labels, drawn at random, become another class, each equally likely."""
    rng = stream(seed, "noise")
    rows = rng.permutation(len(labels))[: round(fraction * len(labels))]
    noisy = labels.copy()
    noisy[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    return noisy
