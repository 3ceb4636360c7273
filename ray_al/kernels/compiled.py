"""Inner loops over (C, n) products, compiled by numba: one visit to each number, in registers and the first cache.

Nothing may be reordered or fused: a loop's vectorized body and its scalar rest give equal bits, and so do the copies of
a function that the compiler makes for its callers, of which one or another runs where code comes from the cache. Sums
that are worth it say themselves, by `kernels.vectors`, in which order they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numba.extending
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_LEAST = np.finfo(np.float32).tiny
_TILE = 64  # rows
_ROOT_HALF = np.float32(0.5**0.5).view(np.int32)


def compiled(function: F) -> F:
    """Machine code at the first call, kept on disk; runs without the interpreter's lock."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


@numba.njit(inline="always")
def widened(bits: np.int16) -> np.float32:
    """The float32 of a bfloat16."""
    return np.int32(np.int32(bits) << np.int32(16)).view(np.float32)


def ordered(bits: Any) -> Any:
    """Integers in the order of the numbers whose bits (bfloat16 in int16, float32 in int32) these are."""
    raise NotImplementedError  # compiled code has its own


def least_ordered(table: np.ndarray, bar: np.float32) -> Any:
    """`ordered` of the least number of a table's kind that is at least `bar`."""
    raise NotImplementedError


@numba.extending.overload(ordered, inline="always")
def _ordered(bits: Any) -> Callable[[Any], Any]:
    def of_half(bits: Any) -> Any:
        return np.int16(bits ^ np.int16(np.int16(bits >> np.int16(15)) & np.int16(0x7FFF)))

    def of_float(bits: Any) -> Any:
        return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))

    return of_half if bits.bitwidth == 16 else of_float


@numba.extending.overload(least_ordered)
def _least_ordered(table: Any, bar: Any) -> Callable[[Any, Any], Any]:
    def of_float(table: Any, bar: Any) -> Any:
        bits = np.float32(bar).view(np.int32)
        return np.int32(-1) if bits == 0 else ordered(bits)  # -0 equals 0, and comes before it

    def of_half(table: Any, bar: Any) -> Any:
        bits = np.float32(bar).view(np.int32)
        low = np.int32(-1) if bits == 0 else ordered(bits)
        return np.int16((np.int64(low) + (0xFFFF if low > 0 else 0)) >> 16)  # the last digits of those below 0 are 1

    return of_half if table.dtype.bitwidth == 16 else of_float


@numba.njit(inline="always")
def halved(value: np.float32) -> np.int16:
    """The bits of the nearest bfloat16, the even one of two."""
    bits = np.float32(value).view(np.int32)
    return np.int16(np.int32(bits + np.int32(0x7FFF) + (np.int32(bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))


@numba.njit(inline="always")
def exp(x: np.float32) -> np.float32:
    """exp of x <= 0 with a relative error below 2e-7; 0 below -87. Unlike the library's it is vectorized."""
    low = x < np.float32(-87.0)
    x = max(x, np.float32(-87.0))
    k = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - k * np.float32(0.693359375)  # ln 2 in two parts: the first has few digits, so k times it is exact
    r = r - k * np.float32(-2.12194440e-4)
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    power = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(0.0) if low else p * power


@numba.njit(inline="always")
def _log(x: np.float32) -> np.float32:
    """log of x >= 0 with a relative error below 3e-7; that of the least normal number for what is smaller."""
    bits = np.float32(max(x, _LEAST)).view(np.int32)
    k = np.int32(np.int32(bits - _ROOT_HALF) >> np.int32(23))  # x = 2^k f, f from sqrt(1/2) up to sqrt(2)
    f = np.int32(bits - np.int32(k << np.int32(23))).view(np.float32)
    s = (f - np.float32(1.0)) / (f + np.float32(1.0))  # log f = 2 artanh s, |s| < 0.172
    square = s * s
    p = np.float32(1.0 / 9.0)
    p = p * square + np.float32(1.0 / 7.0)
    p = p * square + np.float32(1.0 / 5.0)
    p = p * square + np.float32(1.0 / 3.0)
    p = p * square + np.float32(1.0)
    return np.float32(k) * np.float32(0.6931471805599453) + np.float32(2.0) * s * p


@compiled
def entropy(logits: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out (n,) = entropy in nats of softmax(logits (C, n) + bias (C,)); NaN where a logit is not finite."""
    classes, n = logits.shape
    top = np.full(n, -np.inf, np.float32)
    total = np.zeros(n, np.float32)
    weighted = np.zeros(n, np.float32)
    for c in range(classes):
        row, b = logits[c], bias[c]
        for j in range(n):
            top[j] = max(top[j], row[j] + b)
    for c in range(classes):
        row, b = logits[c], bias[c]
        for j in range(n):
            z = row[j] + b - top[j]
            e = exp(z)
            total[j] += e
            weighted[j] += e * z
    # H = log Z - sum_c p_c (z_c - max): no logarithm of a probability, which may be 0. Rounding may leave -1e-8.
    for j in range(n):
        h = np.log(total[j]) - weighted[j] / total[j]
        out[j] = np.float32(0.0) if h < 0 else h  # not max(): NaN stays


@compiled
def softmax(logits: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out (n, C) = probabilities of logits (C, n) + bias (C,); NaN where a logit is not finite."""
    classes, n = logits.shape
    part = np.empty((classes, _TILE), np.float32)  # near the processor until it is written the other way round
    top, total = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for start in range(0, n, _TILE):
        width = min(_TILE, n - start)
        top[:] = -np.inf
        total[:] = 0
        for c in range(classes):
            row, b = logits[c, start : start + width], bias[c]
            for j in range(width):
                top[j] = max(top[j], row[j] + b)
        for c in range(classes):
            row, b, found = logits[c, start : start + width], bias[c], part[c]
            for j in range(width):
                z = row[j] + b - top[j]
                e = exp(z)
                found[j] = e
                total[j] += e + np.float32(0.0) * z  # 0 * NaN is NaN
        for j in range(width):
            own, share = out[start + j], np.float32(1.0) / total[j]
            for c in range(classes):
                own[c] = part[c, j] * share


@compiled
def mean_softmax(logits: np.ndarray, bias: np.ndarray, mean: np.ndarray, within: np.ndarray) -> None:
    """mean (C, n) = the mean of T members' probabilities, within (n,) = that of their entropies in nats.

    Members' logits (T*C, n) come one after the other, and are overwritten; bias (T, C). NaN in both where a logit is
    not finite.
    """
    members, classes = bias.shape
    n = logits.shape[1]
    top, total, weighted = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    mean[:] = 0
    within[:] = 0
    share = np.float32(1.0) / np.float32(members)
    for t in range(members):
        top[:] = -np.inf
        total[:] = 0
        weighted[:] = 0
        for c in range(classes):
            row, b = logits[t * classes + c], bias[t, c]
            for j in range(n):
                top[j] = max(top[j], row[j] + b)
        for c in range(classes):
            row, b = logits[t * classes + c], bias[t, c]
            for j in range(n):
                z = row[j] + b - top[j]
                e = exp(z)
                row[j] = e
                total[j] += e + np.float32(0.0) * z  # 0 * NaN is NaN
                weighted[j] += e * z
        for j in range(n):
            within[j] += (np.log(total[j]) - weighted[j] / total[j]) * share
        for c in range(classes):
            row, sums = logits[t * classes + c], mean[c]
            for j in range(n):
                sums[j] += row[j] / total[j] * share


@compiled
def bald(mean: np.ndarray, within: np.ndarray, out: np.ndarray) -> None:
    """out (n,) = entropy of the mean (C, n) less that within, of `mean_softmax`: what label and member share, in nats.

    Houlsby et al. 2011. NaN stays.
    """
    classes, n = mean.shape
    out[:] = 0
    for c in range(classes):
        row = mean[c]
        for j in range(n):
            out[j] -= row[j] * _log(row[j])  # 0 log 0 is 0
    for j in range(n):
        shared = out[j] - within[j]
        out[j] = np.float32(0.0) if shared < 0 else shared  # rounding may leave -1e-7; not max(): NaN stays


@compiled
def two_largest(logits: np.ndarray, bias: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """first and second (n,) = the largest and second largest of softmax(logits (C, n) + bias (C,)); NaN as above.

    With one class the second is 0.
    """
    classes, n = logits.shape
    total = np.zeros(n, np.float32)
    first[:] = -np.inf
    second[:] = -np.inf
    for c in range(classes):
        row, b = logits[c], bias[c]
        for j in range(n):
            z = row[j] + b
            second[j] = max(second[j], min(first[j], z))
            first[j] = max(first[j], z)
    for c in range(classes):
        row, b = logits[c], bias[c]
        for j in range(n):
            z = row[j] + b - first[j]
            total[j] += exp(z) + np.float32(0.0) * z  # 0 * NaN is NaN
    for j in range(n):
        second[j] = exp(second[j] - first[j]) / total[j]
        first[j] = np.float32(1.0) / total[j]
