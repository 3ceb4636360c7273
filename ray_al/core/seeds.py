"""Named random streams. Every random choice of a trajectory draws from one of these, so no choice can shift another."""

from __future__ import annotations

import numpy as np

PURPOSES = ("split", "initial", "init-weights", "order", "augment", "select", "noise", "clusters")


def stream(seed: int, purpose: str, round: int = 0) -> np.random.Generator:
    """Return the generator of (`seed`, `purpose`, `round`); equal arguments give equal streams on every machine.

    `round` is -1 for choices made before any label exists.

    Raises:
        ValueError: `purpose` is not one of `PURPOSES`.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown random stream {purpose!r}; known: {', '.join(PURPOSES)}")
    # The purpose enters by its position in a fixed table: Python's own hash() changes from run to run.
    return np.random.default_rng(np.random.SeedSequence([seed, PURPOSES.index(purpose), round + 1]))


def subseed(rng: np.random.Generator) -> int:
    """Draw a 63-bit seed, to hand a stream to a service or to a library that takes integers."""
    return int(rng.integers(0, 2**63 - 1))
