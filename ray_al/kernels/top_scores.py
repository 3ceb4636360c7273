"""Uncertainty scores of class probabilities, and the best k of a vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ray_al.kernels import blocks

SCORES = ("entropy", "least_confidence", "margin")


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    logits -= logits.amax(0)
    weights = logits.exp()  # (C, n)
    total = weights.sum(0)
    # H = log Z - sum_c p_c (z_c - max): no logarithm of a probability, which may be 0. Rounding may leave -1e-8.
    return (total.log() - weights.mul_(logits).sum(0) / total).clamp_(min=0)


def _least_confidence(logits: torch.Tensor) -> torch.Tensor:
    return 1 - 1 / (logits - logits.amax(0)).exp_().sum(0)


def _second(values: torch.Tensor, first: torch.Tensor, least: float) -> torch.Tensor:
    """(n,) the second largest of each column, `least` when there is none; several times as fast as topk."""
    largest = values == first
    return torch.where(largest.sum(0) > 1, first, values.masked_fill(largest, least).amax(0))


def _margin(logits: torch.Tensor) -> torch.Tensor:
    first = logits.amax(0)
    total = (logits - first).exp_().sum(0)
    second = (_second(logits, first, -torch.inf) - first).exp_()  # 0 when there is one class only
    return 1 - (1 - second) / total


# Classes come first, (C, n): over a small last axis these reductions cost more than the product that made the logits.
_OF_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "entropy": _entropy,
    "least_confidence": _least_confidence,
    "margin": _margin,
}


def _check_score(score: str) -> None:
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; known: {', '.join(SCORES)}")


def uncertainty(probs: np.ndarray, score: str) -> np.ndarray:
    """Uncertainty of each row of probs (n, C): (n,) float32, higher = less certain.

    "entropy" in nats, "least_confidence" 1 - p1, "margin" 1 - (p1 - p2), p1 and p2 the two largest probabilities.

    Raises:
        ValueError: an unknown score, or a probability that is not finite or is negative.
    """
    _check_score(score)
    blocks.check_matrix(probs, "probs")

    def work(start: int, stop: int) -> np.ndarray:
        p = blocks.float_rows(probs, start, stop)
        blocks.check_finite(p, "probs", start)
        if (p < 0).any():
            raise ValueError(f"probs has the negative value {p.min().item()} in rows {start}..{stop - 1}")
        p = p.T.contiguous()  # (C, n)
        if score == "entropy":
            return torch.special.entr(p).sum(0).clamp_(min=0).numpy()
        if score == "least_confidence":
            return (1 - p.amax(0)).numpy()
        first = p.amax(0)
        return (1 - (first - _second(p, first, 0))).numpy()

    return np.concatenate(blocks.map_blocks(work, len(probs), blocks.block_rows(2 * probs.shape[1])))


def _linear(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, finish: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """Rows of finish(logits (C, n)), block by block, joined."""
    blocks.check_matrix(x)
    blocks.check_matrix(weights, "weights")
    if weights.shape[1] != x.shape[1] or bias.shape != weights.shape[:1]:
        raise ValueError(f"weights {weights.shape} and bias {bias.shape} do not fit x {x.shape}")
    for array, name in ((weights, "weights"), (bias, "bias")):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {array[~np.isfinite(array)][0]}")
    w, b = blocks.float_rows(weights, 0, len(weights)), blocks.float_rows(bias[:, None], 0, len(bias))

    def work(start: int, stop: int) -> np.ndarray:
        logits = torch.addmm(b, w, blocks.float_rows(x, start, stop).T)  # (C, n)
        if not torch.isfinite(logits.sum()):
            blocks.check_finite(blocks.float_rows(x, start, stop), "x", start)
            blocks.check_finite(logits.T, "logits", start)
        return finish(logits).numpy()

    return np.concatenate(blocks.map_blocks(work, len(x), blocks.block_rows(x.shape[1] + 2 * len(weights))))


def linear_probs(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """softmax(x @ weights.T + bias): x (n, d), weights (C, d), bias (C,) -> (n, C) float32.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    return _linear(x, weights, bias, lambda logits: torch.softmax(logits, 0).T.contiguous())


def linear_uncertainty(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, score: str) -> np.ndarray:
    """`uncertainty` of the linear head's probabilities, (N,) float32; the N x C probabilities never exist.

    Raises:
        ValueError: an unknown score, shapes that do not fit, or values that are not finite.
    """
    _check_score(score)
    return _linear(x, weights, bias, _OF_LOGITS[score])


def top_k(values: np.ndarray, k: int, exclude: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k ids of largest value, best first, none of `exclude`; ties are broken at random by `seed`.

    Returns:
        ids (k,) int64 and their values (k,).

    Raises:
        ValueError: a value is not finite, an id does not exist, or fewer than k items are left.
    """
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"values is a vector, got shape {values.shape}")
    if not np.isfinite(values).all():
        place = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(f"values is {values[place]} at row {place}")
    free = blocks.free_mask(len(values), k, blocks.check_ids(exclude, len(values), "exclude"))
    ids = np.flatnonzero(free)
    if 0 < k < len(ids):
        bar = np.partition(values[ids], len(ids) - k)[len(ids) - k]
        ids = ids[values[ids] >= bar]
    ids = np.random.default_rng(seed).permutation(ids)
    ids = ids[np.argsort(values[ids], kind="stable")[::-1]][:k]  # stable: equal values stay shuffled
    return ids, values[ids]
