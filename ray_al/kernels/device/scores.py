"""Uncertainty of every row under many linear heads, and each head's best rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.device.rows import DeviceRows, kth_largest, taken_ids, wide_product

SCORES = ("entropy", "least_confidence", "margin", "bald")
BACKENDS = ("torch", "triton")
_LOGITS_AT_ONCE = 1 << 26  # numbers (256 MB) of the torch backend
_SCORES_AT_ONCE = 1 << 28  # scores (1 GB) kept until the best are taken
_LIMIT = 1e37  # of |logit|


class Head(NamedTuple):
    """A linear head: weights (C, d) and bias (C,); for "bald" an ensemble, (S, C, d) and (S, C)."""

    weights: np.ndarray
    bias: np.ndarray


class Heads(NamedTuple):
    """Checked heads of one shape on the device."""

    weights: torch.Tensor  # (T, C, d) or (T, S, C, d) float32
    bias: torch.Tensor  # (T, C) or (T, S, C) float32


def check_head(rows: DeviceRows, head: Head, ensemble: bool = False) -> None:
    """ValueError unless the head fits the rows and its logits are finite on all of them."""
    weights, bias = head
    if weights.ndim != 2 + ensemble or 0 in weights.shape or weights.dtype.kind != "f":
        wanted = "(S, C, d)" if ensemble else "(C, d)"
        raise ValueError(f"weights are float {wanted}, got shape {weights.shape} of {weights.dtype}")
    if weights.shape[-1] != rows.width or bias.shape != weights.shape[:-1]:
        raise ValueError(f"weights {weights.shape} and bias {bias.shape} do not fit x {(rows.count, rows.width)}")
    for array, name in ((weights, "weights"), (bias, "bias")):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {array[~np.isfinite(array)][0]}")
    most = np.abs(weights).sum(-1, dtype=np.float64).max() * rows.largest + np.abs(bias).max()
    if not most < _LIMIT:
        raise ValueError(f"logits may reach {most:.3g}: the weights or x are too large")


def upload(rows: DeviceRows, heads: Sequence[Head]) -> Heads:
    """Heads of one shape, stacked."""
    weights = torch.from_numpy(np.stack([np.asarray(head.weights, np.float32) for head in heads]))
    bias = torch.from_numpy(np.stack([np.asarray(head.bias, np.float32) for head in heads]))
    return Heads(weights.to(rows.device), bias.to(rows.device))


class Linear:
    """One head ready for products with chunks of rows; the weights of float16 rows are split in two parts of float16.

    Raises nothing: heads are checked before.
    """

    def __init__(self, rows: DeviceRows, weights: torch.Tensor, bias: torch.Tensor) -> None:
        weights = weights.clone()  # memory of its own: how it is aligned may change a product's bits
        self.bias = bias  # (C,)
        self.inverse: torch.Tensor | None = None
        self.parts = [weights]  # of (C, d)
        if rows.x.dtype == torch.float16 and rows.x.is_cuda:
            high, low, inverse = split(weights[None])
            self.parts, self.inverse = [high[0], low[0]], inverse[0]

    def logits(self, block: torch.Tensor) -> torch.Tensor:
        """(C, n) float32. Classes first: over a small last axis, reductions cost more than the product."""
        out = wide_product(self.parts[0], block)
        for part in self.parts[1:]:
            out += wide_product(part, block)
        if self.inverse is not None:
            out *= self.inverse
        return out.add_(self.bias[:, None])


def split(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weights (T, C, d) float32 as two float16 parts of weights * scale, and 1 / scale (T,), a power of two.

    The scale puts the largest weight at 2^14 at most: the parts have 22 digits, or 2^-38 of the largest weight.
    """
    largest = weights.abs().amax((1, 2)).clamp_(min=1e-30)
    scale = torch.exp2(14 - torch.log2(largest).ceil()).clamp_(2.0**-100, 2.0**100)
    scaled = weights * scale[:, None, None]
    high = scaled.half()
    return high, (scaled - high.float()).half(), 1 / scale


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """In nats, of logits (C, n), which are overwritten."""
    logits -= logits.amax(0)
    weights = logits.exp()
    total = weights.sum(0)
    # H = log Z - sum_c p_c (z_c - max): no logarithm of a probability, which may be 0. Rounding may leave -1e-8.
    return (total.log() - weights.mul_(logits).sum(0) / total).clamp_(min=0)


def _least_confidence(logits: torch.Tensor) -> torch.Tensor:
    return 1 - 1 / logits.sub_(logits.amax(0)).exp_().sum(0)


def _margin(logits: torch.Tensor) -> torch.Tensor:
    logits -= logits.amax(0)
    total = logits.exp().sum(0)
    largest = logits == 0
    second = torch.where(largest.sum(0) > 1, 0.0, logits.masked_fill_(largest, -torch.inf).amax(0))
    return 1 - (1 - second.exp_()) / total  # one class: the second has probability 0


def _bald(members: Sequence[Linear], block: torch.Tensor) -> torch.Tensor:
    """Mutual information of label and member in nats, (n,): entropy of the mean less the mean of the entropies."""
    mean, entropies = None, None
    for member in members:
        logits = member.logits(block)
        probs = torch.softmax(logits, 0)
        entropy = _entropy(logits)
        mean = probs if mean is None else mean.add_(probs)
        entropies = entropy if entropies is None else entropies.add_(entropy)
    assert mean is not None
    assert entropies is not None
    mean /= len(members)
    return (torch.special.entr(mean).sum(0) - entropies / len(members)).clamp_(min=0)


_OF_LOGITS = {"entropy": _entropy, "least_confidence": _least_confidence, "margin": _margin}


def score_all(rows: DeviceRows, heads: Heads, score: str, backend: str) -> torch.Tensor:
    """(T, N) float32 scores of every row on the device. A head's scores do not depend on the other heads."""
    out = torch.empty((len(heads.bias), rows.count), dtype=torch.float32, device=rows.device)
    if backend == "triton" and score != "bald":
        from ray_al.kernels.device.fused import fused_scores

        fused_scores(rows.x, heads.weights, heads.bias, score, out)
        return out
    members = [  # one for every head, or the ensemble's
        [Linear(rows, w, b) for w, b in zip(weights, bias, strict=True)]
        for weights, bias in zip(
            heads.weights.reshape(len(out), -1, *heads.weights.shape[-2:]),
            heads.bias.reshape(len(out), -1, heads.bias.shape[-1]),
            strict=True,
        )
    ]
    step = min(rows.chunk, max(256, _LOGITS_AT_ONCE // heads.bias.shape[-1]))
    for start in range(0, rows.count, step):
        block = rows.x[start : start + step]
        for values, linear in zip(out, members, strict=True):
            if score == "bald":
                values[start : start + step] = _bald(linear, block)
            else:
                values[start : start + step] = _OF_LOGITS[score](linear[0].logits(block))
    return out


def top(
    rows: DeviceRows,
    heads: Sequence[Head],
    score: str,
    ks: Sequence[int],
    excludes: Sequence[np.ndarray],
    seeds: Sequence[int],
    backend: str,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each head's k rows of largest score, as `ray_al.kernels.top_scores.top_k` gives them; see `DevicePool.top`."""
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; known: {', '.join(SCORES)}")
    taken = [taken_ids(rows.count, k, ("exclude", ids)) for k, ids in zip(ks, excludes, strict=True)]
    for head in heads:
        check_head(rows, head, score == "bald")
    out: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(heads)
    at_once = max(4, _SCORES_AT_ONCE // rows.count)
    for shape in dict.fromkeys(head.weights.shape for head in heads):
        same = [i for i, head in enumerate(heads) if head.weights.shape == shape and ks[i]]
        for first in range(0, len(same), at_once):
            group = same[first : first + at_once]
            values = score_all(rows, upload(rows, [heads[i] for i in group]), score, backend)  # (T, N)
            for i, of_head in zip(group, values, strict=True):
                out[i] = _best(of_head, ks[i], rows.ids(taken[i]), seeds[i])
    return out


def _best(values: torch.Tensor, k: int, taken: torch.Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of values (N,), which are overwritten. Only rows no worse than the k-th leave the device."""
    values[taken] = -torch.inf
    bar = kth_largest(values, k)
    ids = torch.nonzero(values >= bar)[:, 0]
    found, scores = ids.cpu().numpy(), values[ids].cpu().numpy()
    order = np.random.default_rng(seed).permutation(len(found))
    order = order[np.argsort(scores[order], kind="stable")[::-1]][:k]  # stable: equal values stay shuffled
    return found[order], scores[order]


def probs(rows: DeviceRows, head: Head, ids: np.ndarray | slice | None) -> np.ndarray:
    """(n, C) float32 class probabilities of rows `ids`; see `DevicePool.probs`."""
    check_head(rows, head)
    weights, bias = upload(rows, [head])
    linear = Linear(rows, weights[0], bias[0])
    if ids is None or isinstance(ids, slice):
        places = range(rows.count)[slice(None) if ids is None else ids]
        if places.step != 1:
            raise ValueError(f"a range of rows has step 1, got {ids}")
        chosen = rows.x[places.start : places.stop]
    else:
        chosen = rows.x[rows.ids(blocks.check_ids(ids, rows.count, "ids"))]
    step = min(rows.chunk, max(256, _LOGITS_AT_ONCE // len(bias[0])))
    out = np.empty((len(chosen), len(bias[0])), np.float32)
    for start in range(0, len(chosen), step):
        part = torch.softmax(linear.logits(chosen[start : start + step]), 0).T.contiguous()
        out[start : start + step] = part.cpu().numpy()
    return out
