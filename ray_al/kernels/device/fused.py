"""Triton kernel: product, softmax and score of linear heads in one pass over the rows.

Every row is read once per group of heads, and one float32 per row and head is written: with 512 float16 features and
ten classes 1028 bytes a row, so the memory's bandwidth is the bound. What a head's rows give does not depend on the
other heads: each head has products of its own, of one shape.
"""

# mypy: disable-error-code="no-untyped-def,import-untyped,import-not-found"

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl

from ray_al.kernels.device.scores import split

_BLOCK = 128  # rows of a program
_SCORES = {"entropy": 0, "least_confidence": 1, "margin": 2}


@triton.jit
def _dot(x, high, low, at, acc, SPLIT: tl.constexpr):
    if SPLIT:  # float16 rows: weights in two float16 parts have 22 digits
        acc = tl.dot(x, tl.load(high + at), acc)
        acc = tl.dot(x, tl.load(low + at), acc)
    else:
        acc = tl.dot(x, tl.load(high + at), acc, input_precision="tf32x3")
    return acc


@triton.jit
def _logits(acc, bias, inverse, head, first, CLASSES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr):
    """(rows, TILE) logits of classes first.., -inf beyond the last."""
    c = first + tl.arange(0, TILE)
    z = acc * tl.load(inverse + head) + tl.load(bias + head * PADDED + c)[None, :]
    return tl.where((c < CLASSES)[None, :], z, float("-inf"))


@triton.jit
def _add_tile(z, top, second, total, weighted):
    """Take a tile of logits into the running maximum, second largest, sum of e = exp(z - top) and of e (z - top)."""
    tile_top = tl.max(z, 1)
    largest = z == tile_top[:, None]
    below = tl.max(tl.where(largest, float("-inf"), z), 1)
    tile_second = tl.where(tl.sum(largest.to(tl.int32), 1) > 1, tile_top, below)
    second = tl.maximum(tl.minimum(top, tile_top), tl.maximum(second, tile_second))
    new_top = tl.maximum(top, tile_top)
    gap = top - new_top
    from_top = z - new_top[:, None]
    e = tl.exp(from_top)
    products = tl.where(z > float("-inf"), e * from_top, 0.0)  # a class that is not there has 0 times -inf
    weighted = tl.exp(gap) * (weighted + total * gap) + tl.sum(products, 1)
    total = tl.exp(gap) * total + tl.sum(e, 1)
    return new_top, second, total, weighted


@triton.jit
def _score(top, second, total, weighted, SCORE: tl.constexpr):
    if SCORE == 0:
        value = tl.maximum(tl.log(total) - weighted / total, 0.0)
    elif SCORE == 1:
        value = 1.0 - 1.0 / total
    else:
        value = 1.0 - (1.0 - tl.exp(second - top)) / total
    return value


@triton.jit
def _store(out, value, head, row, rows):
    tl.store(out + (tl.zeros_like(row) + head) * rows + row, value, mask=row < rows)  # row is int64


@triton.jit
def _finish(
    acc, bias, inverse, out, head, row, rows,
    CLASSES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Score a head whose classes are one tile."""
    z = _logits(acc, bias, inverse, head, 0, CLASSES, TILE, TILE)
    least = tl.full((BLOCK,), -3.0e38, tl.float32)
    zero = tl.zeros((BLOCK,), tl.float32)
    top, second, total, weighted = _add_tile(z, least, least, zero, zero)
    _store(out, _score(top, second, total, weighted, SCORE), head, row, rows)


@triton.jit
def _few_classes(
    x, high, low, bias, inverse, out, rows, heads,
    D: tl.constexpr, DEPTH: tl.constexpr, CLASSES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    STEP: tl.constexpr, FOUR: tl.constexpr, SPLIT: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Scores of one head or of four at once for BLOCK rows; all classes of a head are one tile."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, STEP)
    inside = (row < rows)[:, None]
    head_size: tl.constexpr = TILE * DEPTH
    for head in range(0, heads, 4 if FOUR else 1):
        at = head * head_size + tl.arange(0, TILE)[None, :] * DEPTH + k[:, None]
        a = tl.zeros((BLOCK, TILE), tl.float32)
        b = tl.zeros((BLOCK, TILE), tl.float32)
        c = tl.zeros((BLOCK, TILE), tl.float32)
        d = tl.zeros((BLOCK, TILE), tl.float32)
        for first in range(0, D, STEP):
            mask = inside if D % STEP == 0 else inside & (first + k < D)[None, :]
            part = tl.load(x + row[:, None] * D + (first + k)[None, :], mask=mask, other=0.0)
            a = _dot(part, high, low, at + first, a, SPLIT)
            if FOUR:
                b = _dot(part, high, low, at + first + head_size, b, SPLIT)
                c = _dot(part, high, low, at + first + 2 * head_size, c, SPLIT)
                d = _dot(part, high, low, at + first + 3 * head_size, d, SPLIT)
        _finish(a, bias, inverse, out, head, row, rows, CLASSES, TILE, BLOCK, SCORE)
        if FOUR:
            _finish(b, bias, inverse, out, head + 1, row, rows, CLASSES, TILE, BLOCK, SCORE)
            _finish(c, bias, inverse, out, head + 2, row, rows, CLASSES, TILE, BLOCK, SCORE)
            _finish(d, bias, inverse, out, head + 3, row, rows, CLASSES, TILE, BLOCK, SCORE)


@triton.jit
def _many_classes(
    x, high, low, bias, inverse, out, rows, heads,
    D: tl.constexpr, DEPTH: tl.constexpr, CLASSES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, SPLIT: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Scores of every head for BLOCK rows, its classes tile after tile."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, STEP)
    inside = (row < rows)[:, None]
    for head in range(0, heads):
        top = tl.full((BLOCK,), -3.0e38, tl.float32)
        second = tl.full((BLOCK,), -3.0e38, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        weighted = tl.zeros((BLOCK,), tl.float32)
        for first_class in range(0, PADDED, TILE):
            c = head * PADDED + first_class + tl.arange(0, TILE)
            at = c[None, :] * DEPTH + k[:, None]
            acc = tl.zeros((BLOCK, TILE), tl.float32)
            for first in range(0, D, STEP):
                mask = inside if D % STEP == 0 else inside & (first + k < D)[None, :]
                part = tl.load(x + row[:, None] * D + (first + k)[None, :], mask=mask, other=0.0)
                acc = _dot(part, high, low, at + first, acc, SPLIT)
            z = _logits(acc, bias, inverse, head, first_class, CLASSES, PADDED, TILE)
            top, second, total, weighted = _add_tile(z, top, second, total, weighted)
        _store(out, _score(top, second, total, weighted, SCORE), head, row, rows)


def fused_scores(x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor, score: str, out: torch.Tensor) -> None:
    """Write the scores of heads (T, C, d), (T, C) on rows x (n, d) to out (T, n), all on one device.

    x is float16 or float32; nothing may be infinite, and no logit above 1e37.
    """
    heads, classes, d = weights.shape
    halves = x.dtype == torch.float16
    few = classes <= 64
    tile = max(16, 1 << (classes - 1).bit_length()) if few else 128
    padded = -(-classes // tile) * tile
    step = 64 if halves else 32
    depth = -(-d // step) * step
    four = tile <= 32
    # One head alone, and the rest of a division by four, go one by one where that is less work.
    fours = (heads + 2) // 4 * 4 if four else 0
    room = max(heads, fours)
    full = weights.new_zeros((room, padded, depth))
    full[:heads, :classes, :d] = weights
    offsets = bias.new_zeros((room, padded))
    offsets[:heads, :classes] = bias
    high, low, inverse = split(full) if halves else (full, full, weights.new_ones(room))
    values = out if room == heads else out.new_empty((room, len(x)))
    shared = {"D": d, "DEPTH": depth, "CLASSES": classes, "TILE": tile, "BLOCK": _BLOCK, "STEP": step}
    shared |= {"SPLIT": halves, "SCORE": _SCORES[score]}
    grid = (triton.cdiv(len(x), _BLOCK),)

    def stages(together: int) -> int:
        tiles = _BLOCK + together * tile * (2 if halves else 1)
        return max(1, min(4 if few else 3, _shared_bytes(x) // (tiles * step * x.element_size())))

    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        if not few:
            _many_classes[grid](
                x, high, low, offsets, inverse, values, len(x), heads,
                PADDED=padded, num_warps=8, num_stages=stages(1), **shared,
            )  # fmt: skip
        else:
            for first, last, together in ((0, fours, 4), (fours, heads, 1)):
                if first < last:
                    part = slice(first, last)
                    _few_classes[grid](
                        x, high[part], low[part], offsets[part], inverse[part], values[part], len(x), last - first,
                        FOUR=together == 4, num_warps=4, num_stages=stages(together), **shared,
                    )  # fmt: skip
    if values is not out:
        out.copy_(values[:heads])


def _shared_bytes(x: torch.Tensor) -> int:
    """Shared memory that a block of the device may use, less what reductions need."""
    if not x.is_cuda:
        return 0
    found = torch.cuda.get_device_properties(x.device)
    return int(getattr(found, "shared_memory_per_block_optin", 99 << 10)) - 8192
