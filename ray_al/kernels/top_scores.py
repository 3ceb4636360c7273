"""Uncertainty scores of class probabilities, and the best k of a vector."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks, compiled, narrow
from ray_al.kernels.passes import Block, Rows
from ray_al.kernels.products import multiply, widened

SCORES = ("entropy", "least_confidence", "margin")
BALD = "bald"  # the score of a committee's members; the others score its mean probabilities, too


def _check_score(score: str) -> None:
    if score not in (*SCORES, BALD):
        raise ValueError(f"unknown score {score!r}; known: {', '.join((*SCORES, BALD))}")


def uncertainty(probs: np.ndarray, score: str) -> np.ndarray:
    """Uncertainty of each row of probs (n, C), or of (T, n, C) for "bald": (n,) float32, higher = less certain.

    "entropy" in nats, "least_confidence" 1 - p1, "margin" 1 - (p1 - p2), p1 and p2 the two largest probabilities;
    "bald" is the mutual information of label and member in nats, the entropy of the mean less the mean entropy
    (Houlsby et al. 2011; Gal et al. 2017).

    Raises:
        ValueError: an unknown score, or a probability that is not finite or is negative.
    """
    _check_score(score)
    if score == BALD:
        return _bald(probs)
    blocks.check_matrix(probs, "probs")
    rows = blocks.block_rows(2 * probs.shape[1])
    return np.concatenate(
        blocks.map_blocks(lambda a, b: _of_classes(_checked(probs, a, b), score).numpy(), len(probs), rows)
    )


def _checked(probs: np.ndarray, start: int, stop: int) -> torch.Tensor:
    """Rows of probs (n, C) as (C, stop - start) float32."""
    p = blocks.float_rows(probs, start, stop)
    blocks.check_finite(p, "probs", start)
    if (p < 0).any():
        raise ValueError(f"probs has the negative value {p.min().item()} in rows {start}..{stop - 1}")
    return p.T.contiguous()


def _of_classes(p: torch.Tensor, score: str) -> torch.Tensor:
    """`uncertainty` of probabilities (C, n)."""
    if score == "entropy":
        return torch.special.entr(p).sum(0).clamp_(min=0)
    first = p.amax(0)
    if score == "least_confidence":
        return 1 - first
    largest = p == first
    second = torch.where(largest.sum(0) > 1, first, p.masked_fill(largest, 0).amax(0))
    return 1 - (first - second)


def _bald(probs: np.ndarray) -> np.ndarray:
    if probs.ndim != 3 or not len(probs):
        raise ValueError(f"bald needs probs (T, n, C) of T members, got shape {probs.shape}")
    for member in probs:
        blocks.check_matrix(member, "probs")

    def work(start: int, stop: int) -> np.ndarray:
        members = torch.stack([_checked(member, start, stop) for member in probs])  # (T, C, n)
        within = torch.special.entr(members).sum(1).mean(0)
        return (torch.special.entr(members.mean(0)).sum(0) - within).clamp_(min=0).numpy()

    rows = blocks.block_rows(2 * len(probs) * probs.shape[2])
    return np.concatenate(blocks.map_blocks(work, probs.shape[1], rows))


def _head(x: Rows, weights: np.ndarray, bias: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Weights (C, d) as a tensor and bias (C,), both float32, checked; of (T, C, d) all members' (T*C, d), (T, C)."""
    if weights.ndim != 3:
        blocks.check_matrix(weights, "weights")
    if 0 in weights.shape or weights.shape[-1] != x.width or bias.shape != weights.shape[:-1]:
        raise ValueError(f"weights {weights.shape} and bias {bias.shape} do not fit x {x.x.shape}")
    for array, name in ((weights, "weights"), (bias, "bias")):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {array[~np.isfinite(array)][0]}")
    return _columns(weights), np.ascontiguousarray(bias, np.float32)


def _columns(weights: np.ndarray) -> torch.Tensor:
    return blocks.float_rows(weights.reshape(-1, weights.shape[-1]), 0, weights.size // weights.shape[-1])


def _mean_softmax(product: torch.Tensor, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities (C, n) of a committee, and its members' mean entropy (n,); the product (T*C, n) is spent."""
    n = product.shape[1]
    mean, within = np.empty((bias.shape[1], n), np.float32), np.empty(n, np.float32)
    compiled.mean_softmax(product.numpy(), bias, mean, within)
    return mean, within


def _softmax(product: torch.Tensor, bias: np.ndarray, out: np.ndarray) -> None:
    """out (n, C) = probabilities of one head, or the mean of a committee's."""
    if bias.ndim == 2:
        out[:] = _mean_softmax(product, bias)[0].T
    else:
        compiled.softmax(product.numpy(), bias, out)


def _check_logits(x: Rows, values: np.ndarray) -> None:
    """Raise ValueError when a value of a pass's row is NaN: its features or its logits are not finite."""
    if np.isnan(values.sum()):
        row = x.start + int(np.flatnonzero(np.isnan(values))[0])
        blocks.check_finite(blocks.float_rows(x.x, row, row + 1), "x", row)
        raise ValueError(f"the logits of row {row} are not finite")


def linear_probs(x: np.ndarray | Rows, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """softmax(x @ weights.T + bias): x (n, d) or the rows of a shard, weights (C, d), bias (C,) -> (n, C) float32.

    Of a committee, weights (T, C, d) and bias (T, C), the mean of its members'.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    rows = x if isinstance(x, Rows) else Rows(x)
    columns, bias = _head(rows, weights, bias)
    out = np.empty((len(rows), bias.shape[-1]), np.float32)
    few = narrow.reader(rows.x, columns.numpy(), bias)

    def work(block: Block, product: torch.Tensor) -> None:
        probs = out[block.start - rows.start : block.stop - rows.start]
        if few:
            few(block.start, block.stop, probs)
        else:
            _softmax(product, bias, probs)

    rows.sweep(work, None if few else columns)
    _check_logits(rows, out[:, 0])
    return out


def linear_probs_of_block(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """`linear_probs` of the rows of one block, in this thread and its own memory: for use within a pass."""
    columns = _columns(weights)
    out = np.empty((len(x), bias.shape[-1]), np.float32)
    if few := narrow.reader(x, columns.numpy(), bias):
        few(0, len(x), out)
    else:
        _softmax(multiply(widened([columns]), blocks.float_rows(x, 0, len(x)))[: len(columns)], bias, out)
    return out


def linear_uncertainty(
    x: np.ndarray | Rows, weights: np.ndarray, bias: np.ndarray, score: str, classes: np.ndarray | None = None
) -> np.ndarray:
    """`uncertainty` of the linear head's probabilities, (N,) float32; the N x C probabilities never exist.

    Of a committee, weights (T, C, d) and bias (T, C), its mean probabilities' score, or "bald". `classes` (N,), when
    given, takes each row's most probable class; of equal ones the first.

    Raises:
        ValueError: an unknown score, shapes that do not fit, or values that are not finite.
    """
    _check_score(score)
    if weights.ndim == 3:
        return _committee_scores(x, weights, bias, score, classes)
    if score == BALD:
        raise ValueError(f"bald compares the members of a committee, weights (T, C, d); got one head {weights.shape}")
    rows = x if isinstance(x, Rows) else Rows(x)
    columns, bias = _head(rows, weights, bias)
    out = np.empty(len(rows), np.float32)

    def work(block: Block, product: torch.Tensor) -> None:
        own = slice(block.start - rows.start, block.stop - rows.start)
        values = out[own]
        if classes is not None:
            classes[own] = (product.numpy() + bias[:, None]).argmax(0)
        if score == "entropy":
            compiled.entropy(product.numpy(), bias, values)
        else:
            second = np.empty_like(values)
            compiled.two_largest(product.numpy(), bias, values, second)
            np.subtract(1, values, out=values)
            if score == "margin":
                values += second

    rows.sweep(work, columns)
    _check_logits(rows, out)
    return out


def _committee_scores(
    x: np.ndarray | Rows, weights: np.ndarray, bias: np.ndarray, score: str, classes: np.ndarray | None
) -> np.ndarray:
    rows = x if isinstance(x, Rows) else Rows(x)
    columns, bias = _head(rows, weights, bias)
    out, within = np.empty((2, len(rows)), np.float32)

    def work(block: Block, product: torch.Tensor) -> None:
        own = slice(block.start - rows.start, block.stop - rows.start)
        mean, within[own] = _mean_softmax(product, bias)
        if classes is not None:
            classes[own] = mean.argmax(0)
        if score == BALD:
            compiled.bald(mean, within[own], out[own])
        else:
            out[own] = _of_classes(torch.from_numpy(mean), score).numpy()

    rows.sweep(work, columns)
    _check_logits(rows, within)
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
