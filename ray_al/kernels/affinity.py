"""The weighted graph of label propagation, from nearest neighbors on the unit sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_al.kernels.compiled import compiled

_ROWS = 1 << 16  # read at once

GRAPHS = ("union", "reciprocal")


@dataclass(frozen=True)
class Affinity:
    """W = D^-1/2 A D^-1/2 (N, N) in compressed rows: symmetric, not negative, zero diagonal; row i's columns ascend.

    A node without edges has an empty row.
    """

    starts: np.ndarray  # (N + 1,) int64: row i is entries starts[i]..starts[i + 1]
    columns: np.ndarray  # (E,) int32
    values: np.ndarray  # (E,) float32
    degrees: np.ndarray  # (N,) float64 row sums of A

    @property
    def count(self) -> int:
        return len(self.starts) - 1


def affinity(ids: np.ndarray, distances: np.ndarray, gamma: float = 3.0, graph: str = "union") -> Affinity:
    """The affinity of a kNN graph: ids (N, k), distances (N, k) between rows of length 1.

    An edge weighs max(0, cos)^gamma. "union" adds both directions, A + A^T, so that edges of mutual neighbors count
    twice (as the released code of Iscen et al. 2019 does); "reciprocal" keeps mutual neighbors alone, once.

    Raises:
        ValueError: ids and distances do not fit, a node is its own neighbor, or an option is unknown.
    """
    if ids.ndim != 2 or ids.shape != distances.shape:
        raise ValueError(f"ids {ids.shape} and distances {distances.shape} are two tables (N, k)")
    if graph not in GRAPHS:
        raise ValueError(f"unknown graph {graph!r}; known: {', '.join(GRAPHS)}")
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}, but it must be above 0")
    count = len(ids)
    if ids.size and not (ids.min() >= 0 and ids.max() < count < 2**31):
        raise ValueError(f"ids lie in {ids.min()}..{ids.max()}, outside 0..{count - 1}")
    if (ids == np.arange(count)[:, None]).any():
        raise ValueError("a node is among its own neighbors")
    names, weights = np.empty(ids.shape, np.int32), np.empty(ids.shape, np.float32)
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        order = np.argsort(ids[rows], axis=1)
        names[rows] = np.take_along_axis(ids[rows], order, 1)  # ascending
        cosine = 1 - np.take_along_axis(distances[rows], order, 1).astype(np.float64) ** 2 / 2
        weights[rows] = np.maximum(cosine, 0) ** gamma
    if not np.isfinite(weights).all():
        raise ValueError("distances is not finite")
    back_starts, back_names, back_weights = _transpose(names, weights)
    starts = np.zeros(count + 1, np.int64)
    mutual = graph == "reciprocal"
    nothing = np.empty(0, np.int32), np.empty(0, np.float64)
    _join(names, weights, back_starts, back_names, back_weights, mutual, starts, *nothing)
    np.cumsum(starts, out=starts)
    columns, sums = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    _join(names, weights, back_starts, back_names, back_weights, mutual, starts, columns, sums)
    values, degrees = _normalized(starts, columns, sums)
    return Affinity(starts, columns, values, degrees)


@compiled
def _transpose(names: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who names each node: starts (N + 1,), names in ascending order, weights."""
    count, k = names.shape
    starts = np.zeros(count + 1, np.int64)
    for i in range(count):
        for j in range(k):
            starts[names[i, j] + 1] += 1
    for i in range(count):
        starts[i + 1] += starts[i]
    at = starts.copy()
    back, values = np.empty(count * k, np.int32), np.empty(count * k, np.float32)
    for i in range(count):
        for j in range(k):
            node = names[i, j]
            back[at[node]], values[at[node]] = i, weights[i, j]
            at[node] += 1
    return starts, back, values


@compiled
def _join(
    names: np.ndarray,
    weights: np.ndarray,
    back_starts: np.ndarray,
    back: np.ndarray,
    back_weights: np.ndarray,
    mutual: bool,
    starts: np.ndarray,
    columns: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Merge the neighbors of each node with those that name it, both ascending; weights 0 are no edges.

    With empty `columns` only counts: starts[i + 1] becomes the number of edges of node i.
    """
    count, k = names.shape
    counting = len(columns) == 0
    for i in range(count):
        a, b, end = 0, back_starts[i], back_starts[i + 1]
        at = np.int64(0) if counting else starts[i]
        while a < k or b < end:
            one = names[i, a] if a < k else np.int32(2147483647)
            other = back[b] if b < end else np.int32(2147483647)
            node = min(one, other)
            weight = 0.0
            if one == node:
                weight += np.float64(weights[i, a])
                a += 1
            if other == node:
                weight += np.float64(back_weights[b])
                b += 1
            if mutual:
                weight = weight / 2 if one == other else 0.0
            if weight > 0:
                if not counting:
                    columns[at], sums[at] = node, weight
                at += 1
        if counting:
            starts[i + 1] = at


@compiled
def _normalized(starts: np.ndarray, columns: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E,) float32 weights over the square roots of the degrees at both ends; (N,) float64 degrees."""
    count = len(starts) - 1
    roots, degrees = np.zeros(count), np.zeros(count)
    for i in range(count):
        degree = 0.0
        for e in range(starts[i], starts[i + 1]):
            degree += sums[e]
        degrees[i] = degree
        roots[i] = 1 / np.sqrt(degree) if degree > 0 else 0.0
    out = np.empty(len(columns), np.float32)
    for i in range(count):
        for e in range(starts[i], starts[i + 1]):
            out[e] = np.float32(sums[e] * (roots[i] * roots[columns[e]]))
    return out, degrees


@compiled
def components(starts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(N,) int64 connected component of every node, numbered in the order of their first nodes."""
    count = len(starts) - 1
    found, stack = np.full(count, -1, np.int64), np.empty(count, np.int64)
    number = 0
    for first in range(count):
        if found[first] >= 0:
            continue
        found[first], stack[0], depth = number, first, 1
        while depth > 0:
            depth -= 1
            i = stack[depth]
            for e in range(starts[i], starts[i + 1]):
                j = columns[e]
                if found[j] < 0:
                    found[j], stack[depth] = number, j
                    depth += 1
        number += 1
    return found
