"""Nearest neighbors over one matrix: matches, neighbors of rows, the kNN graph; by any index, whole or in shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.exact_search import take_nearest

INDEXES = ("flat", "hnsw", "ivf")  # exact; approximate by a hierarchical graph; approximate by inverted lists
_QUERIES = 8192  # rows of the graph at once
_FIRST_LOOK = 16
_BEYOND = 2.5  # from the origin: 1.5 or more from the unit sphere, where a right angle is sqrt(2)

Found = tuple[np.ndarray, np.ndarray]


class Index(Protocol):
    """What all indexes over `count` rows can do."""

    @property
    def count(self) -> int: ...

    def search(self, queries: np.ndarray, k: int, free: np.ndarray | None = None) -> Found:
        """(q, k) int64 ids and float64 squared distances of the k nearest rows of each query (q, d), by (distance, id).

        Rows that `free` (count,) bool forbids are left out; when fewer than k are left, ids end with -1 and distances
        with infinity. A query's answer does not depend on the queries beside it.
        """
        ...


def build_index(x: np.ndarray, index: str = "flat") -> Index:
    """An index over the rows of x (N, d).

    Raises:
        ValueError: x is not a finite matrix, or there is no such index.
    """
    if index == "flat":
        from ray_al.kernels.flat_index import FlatIndex

        return FlatIndex(x, gpu=True)
    if index in INDEXES:
        from ray_al.kernels.approximate_index import ApproximateIndex

        return ApproximateIndex(x, index)
    raise ValueError(f"unknown index {index!r}; known: {', '.join(INDEXES)}")


class ShardedNeighbors:
    """Indexes over consecutive ranges of rows, searched together: the answers of one index over all rows.

    Of flat indexes they are the same, bit for bit.
    """

    def __init__(self, parts: Sequence[Index]) -> None:
        self.parts = tuple(parts)
        ends = np.cumsum([part.count for part in parts]).tolist()
        self.ranges = list(zip([0, *ends[:-1]], ends, strict=True))
        self.count = ends[-1]

    def search(self, queries: np.ndarray, k: int, free: np.ndarray | None = None) -> Found:
        def work(part: Index, start: int, stop: int) -> Found:
            ids, squares = part.search(queries, k, None if free is None else free[start:stop])
            return np.where(ids < 0, -1, ids + start), squares

        with ThreadPoolExecutor(len(self.parts)) as threads:  # a part may be another machine's
            found = list(threads.map(lambda part, rows: work(part, *rows), self.parts, self.ranges))
        squares, ids = take_nearest(np.hstack([s for _, s in found]), np.hstack([i for i, _ in found]), k)
        return ids, squares


class UnitRows:
    """x (N, d) read with its rows scaled to length 1, float32, as they are needed.

    Among unit rows the nearest are those of the largest cosine: |a - b|^2 = 2 - 2 cos. Rows of zeros have no direction:
    they are all put at one point beyond the sphere, near each other and farther from all others than any right angle.
    As zeros they would be nearer to most rows than those are to each other.
    """

    ndim, dtype = 2, np.dtype(np.float32)

    def __init__(self, x: np.ndarray) -> None:
        blocks.check_matrix(x)
        self._x, self.shape = x, x.shape

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, rows: Any) -> np.ndarray:
        wide = self._x[rows].astype(np.float64)
        norms = np.sqrt(np.square(wide).sum(1, keepdims=True))
        unit: np.ndarray = (wide / np.where(norms > 0, norms, 1)).astype(np.float32)
        unit[norms[:, 0] == 0, 0] = _BEYOND
        return unit


def nearest(index: Index, queries: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """(q,) distinct int64 ids: each query's nearest row that is neither excluded nor taken by an earlier query.

    Raises:
        ValueError: queries (q, d) are not finite, or there are fewer rows left than queries.
    """
    queries = check_queries(queries)
    free = blocks.free_mask(index.count, len(queries), blocks.check_ids(exclude, index.count, "exclude"))
    out = np.empty(len(queries), np.int64)
    row, look = 0, _FIRST_LOOK
    while row < len(queries):
        # Others can take no more rows from a query than there are others.
        look = min(look, len(queries) - row)
        step = max(1, 64 * _QUERIES // look)
        for ids in index.search(queries[row : row + step], look, free)[0]:
            open_ = ids[free[ids] & (ids >= 0)]
            if not len(open_):
                look *= 4
                break
            out[row] = open_[0]
            free[out[row]] = False
            row += 1
    return out


def neighbors_of(index: Index, x: np.ndarray, ids: np.ndarray, k: int) -> Found:
    """(n, k) int64 ids and float32 distances of the k nearest others of rows `ids` of x, nearest first.

    A row itself is left out by id: its duplicates stay.

    Raises:
        ValueError: k is not in 0..N-1, or an id does not exist.
    """
    if not 0 <= k < index.count:
        raise ValueError(f"k is {k}, but it must lie in 0..{index.count - 1}")
    ids = blocks.check_ids(ids, index.count, "ids")
    found, squares = index.search(np.asarray(x[ids], np.float32), k + 1)
    keep = found != ids[:, None]
    keep[keep.all(1), -1] = False  # crowded out by nearer ids among its duplicates
    near, far = found[keep].reshape(len(ids), k), squares[keep].reshape(len(ids), k)
    return near, np.sqrt(far).astype(np.float32)


def graph_blocks(index: Index, x: np.ndarray, k: int) -> Iterator[Found]:
    """The kNN graph of x in blocks of rows: `neighbors_of` all rows in order, ids as int32 where they fit."""
    small = np.int32 if index.count < 2**31 else np.int64
    for start in range(0, index.count, _QUERIES):
        ids, far = neighbors_of(index, x, np.arange(start, min(start + _QUERIES, index.count)), k)
        yield ids.astype(small), far


def unit_graph(x: np.ndarray, k: int, index: str = "flat") -> Found:
    """The kNN graph (N, k) of the rows of x (N, d) by cosine: ids, and distances between rows scaled to length 1."""
    rows: Any = UnitRows(x)
    parts = list(graph_blocks(build_index(rows, index), rows, k))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([far for _, far in parts])


def nearest_rows(index: Index, queries: np.ndarray | UnitRows, k: int) -> Found:
    """(q, k) int64 ids and float32 distances of each query's k nearest rows, nearest first; queries are no rows of it.

    Raises:
        ValueError: k is more than there are rows.
    """
    if not 0 <= k <= index.count:
        raise ValueError(f"k is {k}, but it must lie in 0..{index.count}")
    ids, far = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        ids[part], squares = index.search(np.asarray(queries[part], np.float32), k)
        far[part] = np.sqrt(squares)
    return ids, far


def check_queries(queries: np.ndarray) -> np.ndarray:
    """The queries (q, d) as float32; ValueError when they are no matrix or not finite."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2:
        raise ValueError(f"queries is a matrix (q, d), got shape {queries.shape}")
    if not np.isfinite(queries).all():
        place = np.argwhere(~np.isfinite(queries))[0].tolist()
        raise ValueError(f"queries is {queries[tuple(place)]} at row {place[0]}, column {place[1]}")
    return queries
