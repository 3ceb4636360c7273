"""Which images make up the batches of an epoch: passes over the labels, and the two streams of semi-supervision."""

from __future__ import annotations

import math

import numpy as np

SAMPLINGS = ("with_replacement", "prob_half")


def passes(count: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """(steps, batch) positions of one pass over `count` items in random order.

    The last batch is dropped when it is not full; fewer items than a batch are one batch.
    """
    batch = min(batch, count)
    steps = count // batch
    return rng.permutation(count)[: steps * batch].reshape(steps, batch)


def cycle(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws,) positions: pass after pass over `count` items, each in an order of its own."""
    orders = [rng.permutation(count) for _ in range(math.ceil(draws / count))]
    return np.concatenate(orders)[:draws]


def with_replacement(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws,) positions drawn with probability proportional to weights (n,), uniformly when all of them are 0."""
    _check(weights)
    ends = np.cumsum(weights, dtype=np.float64)
    if ends[-1] == 0:
        return rng.integers(0, len(weights), draws)
    # Uniform in [0, 1) times the sum may round up to the sum; the last positive weight is then meant.
    last = int(np.flatnonzero(weights)[-1])
    return np.minimum(np.searchsorted(ends, rng.random(draws) * ends[-1], side="right"), last)


def without_replacement(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws,) distinct positions in random order, drawn one after another in proportion to the weights that are left.

    Positions of weight 0 come, uniformly, when no other is left. Exponential times with these rates end in the order in
    which such draws come (Efraimidis & Spirakis 2006).
    """
    _check(weights)
    times, spare = rng.exponential(size=len(weights)), rng.random(len(weights))
    with np.errstate(divide="ignore"):
        times = times / weights.astype(np.float64)
    return rng.permutation(np.lexsort((spare, times))[:draws])


def _check(weights: np.ndarray) -> None:
    if not (len(weights) and np.isfinite(weights).all() and weights.min() >= 0):
        raise ValueError("weights are at least one number, each finite and 0 or more")


def two_streams(
    labeled: int, weights: np.ndarray, batch: int, labeled_batch: int, sampling: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The batches of one semi-supervised epoch.

    Half as many unlabeled items are drawn as there are: "with_replacement", in proportion to their weights (the paper),
    or "prob_half", each at most once (the released code).

    Returns:
        positions among the `labeled` items (steps, labeled_batch), which come round again and again, and among the
        unlabeled ones (steps, batch - labeled_batch); the last batch is dropped when it is not full.
    """
    share = batch - labeled_batch
    draws = len(weights) // 2
    if draws < share:  # of a pool this small all are drawn as often as it takes for one step
        draws, sampling = share, "with_replacement"
    draw = with_replacement if sampling == "with_replacement" else without_replacement
    steps = draws // share
    pseudo = draw(weights, draws, rng)[: steps * share].reshape(steps, share)
    return cycle(labeled, steps * labeled_batch, rng).reshape(steps, labeled_batch), pseudo
