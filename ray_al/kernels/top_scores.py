"""Uncertainty scores of class probabilities, and the best k of a vector."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks, compiled
from ray_al.kernels.passes import Block, Rows, widened

SCORES = ("entropy", "least_confidence", "margin")


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
        first = p.amax(0)
        if score == "least_confidence":
            return (1 - first).numpy()
        largest = p == first
        second = torch.where(largest.sum(0) > 1, first, p.masked_fill(largest, 0).amax(0))
        return (1 - (first - second)).numpy()

    return np.concatenate(blocks.map_blocks(work, len(probs), blocks.block_rows(2 * probs.shape[1])))


def _head(x: Rows, weights: np.ndarray, bias: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Weights (C, d) as a tensor and bias (C,), both float32, checked."""
    blocks.check_matrix(weights, "weights")
    if weights.shape[1] != x.width or bias.shape != weights.shape[:1]:
        raise ValueError(f"weights {weights.shape} and bias {bias.shape} do not fit x {x.x.shape}")
    for array, name in ((weights, "weights"), (bias, "bias")):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {array[~np.isfinite(array)][0]}")
    return blocks.float_rows(weights, 0, len(weights)), np.ascontiguousarray(bias, np.float32)


def _check_logits(x: Rows, start: int, values: np.ndarray) -> None:
    """Raise ValueError when a row's value is NaN: its features or its logits are not finite."""
    if np.isnan(values.sum()):
        row = start + int(np.flatnonzero(np.isnan(values))[0])
        blocks.check_finite(blocks.float_rows(x.x, row, row + 1), "x", row)
        raise ValueError(f"the logits of row {row} are not finite")


def linear_probs(x: np.ndarray | Rows, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """softmax(x @ weights.T + bias): x (n, d) or the rows of a shard, weights (C, d), bias (C,) -> (n, C) float32.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    rows = x if isinstance(x, Rows) else Rows(x)
    columns, bias = _head(rows, weights, bias)
    out = np.empty((len(rows), len(bias)), np.float32)

    def work(block: Block, product: torch.Tensor) -> None:
        probs = torch.softmax(product + torch.from_numpy(bias)[:, None], 0).T.numpy()
        _check_logits(rows, block.start, probs[:, 0])
        out[block.start - rows.start : block.stop - rows.start] = probs

    rows.sweep(work, columns)
    return out


def linear_probs_of_block(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """`linear_probs` of the rows of one block, in this thread and its own memory: for use within a pass."""
    columns = widened(blocks.float_rows(weights, 0, len(weights)))
    product = torch.mm(columns, blocks.float_rows(x, 0, len(x)).T)[: len(weights)]
    return torch.softmax(product + torch.from_numpy(bias)[:, None], 0).T.numpy()


def linear_uncertainty(x: np.ndarray | Rows, weights: np.ndarray, bias: np.ndarray, score: str) -> np.ndarray:
    """`uncertainty` of the linear head's probabilities, (N,) float32; the N x C probabilities never exist.

    Raises:
        ValueError: an unknown score, shapes that do not fit, or values that are not finite.
    """
    _check_score(score)
    rows = x if isinstance(x, Rows) else Rows(x)
    columns, bias = _head(rows, weights, bias)
    out = np.empty(len(rows), np.float32)

    def work(block: Block, product: torch.Tensor) -> None:
        values = out[block.start - rows.start : block.stop - rows.start]
        if score == "entropy":
            compiled.entropy(product.numpy(), bias, values)
        else:
            second = np.empty_like(values)
            compiled.two_largest(product.numpy(), bias, values, second)
            np.subtract(1, values, out=values)
            if score == "margin":
                values += second
        _check_logits(rows, block.start, values)

    rows.sweep(work, columns)
    return out


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
    exclude = blocks.check_ids(exclude, len(values), "exclude")
    if not np.isfinite(values.sum(dtype=np.float64)):
        place = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(f"values is {values[place]} at row {place}")
    free = blocks.free_mask(len(values), k, exclude)
    return best_of(*leading(values, k, free), k, seed)


def leading(values: np.ndarray, k: int, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions, ascending, and values of all free (n,) bool entries no smaller than the k-th largest of these."""
    k = min(k, int(free.sum()))
    if not k:
        return np.empty(0, np.int64), values[:0]
    open_ = np.where(free, values, -np.inf).astype(values.dtype, copy=False)
    bar = np.partition(open_, len(values) - k)[len(values) - k]
    rows = np.flatnonzero((open_ >= bar) & free)
    return rows, values[rows]


def best_of(ids: np.ndarray, values: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k ids of largest value, best first, of those that `leading` gave for the whole or for its parts, joined."""
    keep, values = leading(values, k, np.ones(len(values), bool))
    order = np.random.default_rng(seed).permutation(len(keep))
    order = order[np.argsort(values[order], kind="stable")[::-1]][:k]  # stable: equal values stay shuffled
    return ids[keep[order]], values[order]
