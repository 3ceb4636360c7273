"""The k nearest rows, exactly: float32 products rule out most rows, distances in float64 decide among the rest.

A float32 product gives squared distances with an error of at most (d + a few) units in the last place of
(|a| + |b|)^2. A row whose distance less that error is not below the k-th best is out for certain; all others are
measured by differences in float64. So an answer depends on the query and the rows alone: not on what is asked together
with it, on how the rows are cut into blocks or shards, nor on the number of threads.
"""

from __future__ import annotations

import numpy as np

from ray_al.kernels.compiled import compiled

UNIT = 2.0**-24  # relative rounding of float32
TINY = 1e-36  # absolute error, per column, of products so small that float32 drops digits
_GROUP = 64  # products looked at together: most such groups hold nothing near


@compiled
def squared_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b|^2 of two float32 rows, in float64, summed in one fixed order."""
    n = len(a)
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, n - 3, 4):
        t0 = np.float64(a[i]) - np.float64(b[i])
        t1 = np.float64(a[i + 1]) - np.float64(b[i + 1])
        t2 = np.float64(a[i + 2]) - np.float64(b[i + 2])
        t3 = np.float64(a[i + 3]) - np.float64(b[i + 3])
        s0 += t0 * t0
        s1 += t1 * t1
        s2 += t2 * t2
        s3 += t3 * t3
    for i in range(n - n % 4, n):
        t0 = np.float64(a[i]) - np.float64(b[i])
        s0 += t0 * t0
    return (s0 + s1) + (s2 + s3)


@compiled
def keep_nearest(square: float, row: int, squares: np.ndarray, ids: np.ndarray) -> None:
    """Put a row into a heap of the k nearest so far: the farthest lies first; of equally far ones the larger id."""
    k = len(ids)
    if not (square < squares[0] or (square == squares[0] and row < ids[0])):
        return
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        other = child + 1
        if other < k and (
            squares[other] > squares[child] or (squares[other] == squares[child] and ids[other] > ids[child])
        ):
            child = other
        if squares[child] < square or (squares[child] == square and ids[child] <= row):
            break
        squares[at], ids[at] = squares[child], ids[child]
        at = child
    squares[at], ids[at] = square, row


@compiled
def _reach(square: float, low_query: float, tiny: float) -> np.float32:
    """What low - 2 products of a row must stay below, if the row may be no farther than `square`."""
    return np.float32(square - low_query + 4 * UNIT * (square + low_query) + tiny)


@compiled
def scan_block(
    products: np.ndarray,
    low: np.ndarray,
    rows: np.ndarray,
    first: int,
    queries: np.ndarray,
    low_queries: np.ndarray,
    squares: np.ndarray,
    ids: np.ndarray,
) -> None:
    """Lower the heaps squares, ids (q, k) by a block of rows (n, d), whose ids count from `first`.

    products (q, n) are of the shifted queries and rows, low (n,) the rows' squared norms less the possible error, and
    infinite for rows that are left out; low_queries (q,) likewise; rows and queries (q, d) are unshifted, float32.
    """
    count, n = products.shape
    tiny = TINY * rows.shape[1]
    for q in range(count):
        heap, names, query, row = squares[q], ids[q], queries[q], products[q]
        reach = _reach(heap[0], low_queries[q], tiny)
        for group in range(-(-n // _GROUP)):
            start = group * _GROUP
            hits = np.int32(n < start + _GROUP)  # the last group may be short: it is looked at one by one
            if not hits:
                for j in range(_GROUP):  # a loop of fixed length without branches: this is what makes it vector code
                    hits += np.int32(low[start + j] - np.float32(2.0) * row[start + j] < reach)
            if not hits:
                continue
            for j in range(start, min(start + _GROUP, n)):
                if low[j] - np.float32(2.0) * row[j] < reach:
                    keep_nearest(squared_distance(query, rows[j]), first + j, heap, names)
                    reach = _reach(heap[0], low_queries[q], tiny)


@compiled
def rank_rows(rows: np.ndarray, ids: np.ndarray, queries: np.ndarray, squares: np.ndarray) -> None:
    """squares (q, m) of the rows (q * m, d) that each query names in ids (q, m); infinite where an id is negative."""
    count, m = ids.shape
    for q in range(count):
        for j in range(m):
            if ids[q, j] < 0:
                squares[q, j] = np.inf
            else:
                squares[q, j] = squared_distance(queries[q], rows[q * m + j])


def error_share(width: int) -> float:
    """c: a float32 squared distance is wrong by at most c (|a|^2 + |b|^2), products, norms and shift together."""
    return 2 * (width + 32) * UNIT


def take_nearest(squares: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k first of squares and ids (q, m) by (square, id); missing ones, infinite and -1, come last."""
    order = np.lexsort((ids, squares), axis=-1)[:, :k]
    return np.take_along_axis(squares, order, 1), np.take_along_axis(ids, order, 1)
