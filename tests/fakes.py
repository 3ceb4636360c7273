"""Small in-memory stand-ins shared by the tests. They need numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool


@dataclass(frozen=True)
class ArrayReader:
    """A SpaceReader over given arrays: `ArrayReader({("pixels", "pool"): x, ("pixels", "test"): x_test})`.

    The arrays are marked read-only, so a learner or strategy that writes into its inputs fails at once.
    """

    arrays: Mapping[tuple[str, str], np.ndarray]

    def __post_init__(self) -> None:
        for rows in self.arrays.values():
            rows.flags.writeable = False

    def read(self, space: str, split: str) -> np.ndarray:
        return self.arrays[space, split]


def array_pool(arrays: Mapping[tuple[str, str], np.ndarray], classes: int) -> Pool:
    """A pool over given arrays; its spaces are theirs in the order given, the first one being the default."""
    spaces = list(dict.fromkeys(space for space, _ in arrays))
    sizes = {split: len(rows) for (_, split), rows in arrays.items()}
    return Pool(sizes["pool"], sizes.get("test", 0), classes, ArrayReader(arrays), spaces)


class Toy(NamedTuple):
    """A toy pool, its truth, and its lower half as the labeled set: positions taken for pool ids are then labeled."""

    pool: Pool
    labels: np.ndarray  # (N,)
    test_labels: np.ndarray  # (M,)
    labeled: LabeledSet  # ids 0..N//2-1
    unlabeled: np.ndarray  # (N - N//2,) ids N//2..N-1


def toy_pool(size: int = 80, test_size: int = 40, classes: int = 4, side: int = 8, seed: int = 0) -> Toy:
    """Noisy copies of one random image per class: "pixels" (n, side * side) float32 in 0..1, "images" uint8."""
    rng = np.random.default_rng(seed)
    templates = rng.integers(60, 196, (classes, side, side))
    arrays: dict[tuple[str, str], np.ndarray] = {}
    truth: dict[str, np.ndarray] = {}
    for split, n in (("pool", size), ("test", test_size)):
        truth[split] = rng.permutation(np.arange(n) % classes)
        images = np.clip(templates[truth[split]] + rng.normal(0, 25, (n, side, side)), 0, 255).astype(np.uint8)
        arrays["pixels", split] = images.reshape(n, -1).astype(np.float32) / 255
        arrays["images", split] = images
    lower = np.arange(size // 2)
    return Toy(
        array_pool(arrays, classes),
        truth["pool"],
        truth["test"],
        LabeledSet(lower, truth["pool"][lower], cost=len(lower)),
        np.arange(size // 2, size),
    )


class Carrying:
    """A learner, by its methods, that goes on from the weights of the round before."""

    def fit(self, *arguments: object) -> None: ...

    def state(self) -> bytes: ...

    def restore(self, state: bytes, pool: Pool) -> None: ...


class CarryingAndShared(Carrying):
    share_fits = True

    def save(self, model: object) -> bytes: ...

    def load(self, saved: bytes, pool: Pool) -> None: ...


class SharedWithoutSave:
    share_fits = True

    def fit(self, *arguments: object) -> None: ...
