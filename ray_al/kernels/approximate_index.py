"""Approximate nearest-neighbor search by faiss: a hierarchical graph (HNSW) or inverted lists (IVF), in float16.

What faiss proposes is ranked by exact distances. Both are built and searched so that answers depend on the rows and the
query alone: one thread per part, fixed parts, centers of our own, and every query is searched by itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ray_al.kernels import blocks, distances
from ray_al.kernels.exact_search import take_nearest
from ray_al.kernels.flat_index import FlatIndex, Found, exact_squares
from ray_al.kernels.kmeans import kmeans

HNSW_ROWS = 1 << 17  # rows of one graph: graphs are built beside each other, each by one thread
_LINKS = 32  # of a node of the graph; 64 in its lowest layer
_BUILD_WIDTH = 100  # candidates looked at when a row enters the graph
_SPARE = 16  # more neighbors than asked: float16 may have ranked them wrong
_PROBES = 32  # lists that a query visits
_PER_LIST = 64  # rows per list from which its center is found
_LARGEST = 1024.0  # numbers are scaled to it, far from float16's end
_QUERIES = 256  # per task


def _faiss() -> Any:
    """The library; its type stubs know half of what it can do."""
    import faiss

    return faiss


class _Scaled:
    """Rows of x (N, d) as faiss gets them: float32, moved about their mean, scaled into float16's range."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._rows = blocks.block_rows(x.shape[1])
        self._shift, self._scale = distances.center(x, np.arange(len(x))), np.float32(1)
        largest = max(blocks.map_blocks(self._largest, len(x), self._rows))
        self._scale = np.float32(_LARGEST / largest) if largest > 0 else np.float32(1)

    def _largest(self, start: int, stop: int) -> float:
        block = blocks.float_rows(self.x, start, stop, self._shift)
        blocks.check_finite(block, "x", start)
        return float(block.abs().max())

    def of(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((np.asarray(rows, np.float32) - self._shift) * self._scale)

    def add_to(self, index: Any, start: int, stop: int) -> None:
        for at in range(start, stop, self._rows):
            index.add(self.of(self.x[at : min(at + self._rows, stop)]))


class _Proposer(Protocol):
    def propose(self, queries: np.ndarray, k: int, free: np.ndarray | None) -> np.ndarray:
        """(q, m) ids near each of the scaled queries, in no order; -1 for none."""
        ...


class _Graphs:
    """Hierarchical navigable small worlds (Malkov & Yashunin 2018), one for every HNSW_ROWS rows."""

    def __init__(self, scaled: _Scaled) -> None:
        self._starts = range(0, len(scaled.x), HNSW_ROWS)
        self._parts = blocks.run(lambda start: self._build(scaled, start), self._starts)

    @staticmethod
    def _build(scaled: _Scaled, start: int) -> Any:
        faiss = _faiss()
        faiss.omp_set_num_threads(1)  # of this pool thread only; several would build another graph every time
        index = faiss.IndexHNSWSQ(scaled.x.shape[1], faiss.ScalarQuantizer.QT_fp16, _LINKS)
        index.hnsw.efConstruction = _BUILD_WIDTH
        index.is_trained = True  # float16 has nothing to learn
        scaled.add_to(index, start, min(start + HNSW_ROWS, len(scaled.x)))
        return index

    def propose(self, queries: np.ndarray, k: int, free: np.ndarray | None) -> np.ndarray:
        faiss = _faiss()
        found = []
        for start, index in zip(self._starts, self._parts, strict=True):
            selector, _bits = _selector(free, start, index.ntotal)
            look = faiss.SearchParametersHNSW(efSearch=max(128, 2 * k), sel=selector)
            ids = index.search(queries, min(k, index.ntotal), params=look)[1]
            found.append(np.where(ids < 0, -1, ids + start))
        return np.hstack(found)


class _Lists:
    """Inverted lists (Sivic & Zisserman 2003): a query visits those of the _PROBES nearest centers."""

    def __init__(self, scaled: _Scaled) -> None:
        faiss = _faiss()
        count, width = scaled.x.shape
        lists = max(1, min(int(4 * np.sqrt(count)), count // _PER_LIST))
        chosen = np.linspace(0, count - 1, min(count, _PER_LIST * lists)).astype(np.int64)
        centers = kmeans(scaled.of(scaled.x[chosen]), lists, seed=0, max_iter=10, tol=1e-3, momentum=0)[1]
        self._centers = FlatIndex(centers)
        self._quantizer = faiss.IndexFlatL2(width)
        self._quantizer.add(centers)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer, width, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2, False
        )
        self._index.is_trained = True
        step = blocks.block_rows(width)
        homes = blocks.map_blocks(lambda a, b: self._nearest_centers(scaled.of(scaled.x[a:b]), 1)[:, 0], count, step)
        for number, home in enumerate(homes):
            start = number * step
            rows = scaled.of(scaled.x[start : start + len(home)])
            names = np.arange(start, start + len(home))
            pointers = [faiss.swig_ptr(array) for array in (rows, names, home)]
            self._index.add_core(len(home), *pointers)

    def _nearest_centers(self, queries: np.ndarray, count: int) -> np.ndarray:
        # faiss's own choice of lists changes its rounding with the number of queries.
        return self._centers.search(queries, count)[0]

    def propose(self, queries: np.ndarray, k: int, free: np.ndarray | None) -> np.ndarray:
        faiss = _faiss()
        probes = min(_PROBES, self._index.nlist)
        selector, _bits = _selector(free, 0, self._index.ntotal)
        look = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        lists = self._nearest_centers(queries, probes)
        far, near = np.zeros(lists.shape, np.float32), np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        pointers = [faiss.swig_ptr(array) for array in (lists, far, near, ids)]
        # The method's Python face takes no selector; the plain one does.
        self._index.search_preassigned_c(len(queries), faiss.swig_ptr(queries), k, *pointers, False, look)
        return ids


def _selector(free: np.ndarray | None, start: int, count: int) -> tuple[Any, np.ndarray | None]:
    """faiss's selector of the free among rows [start, start + count), and its memory; None for all."""
    faiss = _faiss()
    if free is None:
        return None, None
    bits = np.packbits(free[start : start + count], bitorder="little")
    return faiss.IDSelectorBitmap(count, faiss.swig_ptr(bits)), bits


class ApproximateIndex:
    """About the nearest rows of x (N, d): faiss proposes, exact distances decide, exhaustive search fills gaps.

    kind "hnsw" takes 2 d + 260 bytes a row and long to build; "ivf" 2 d + 8 bytes, and is built quickly.

    Raises:
        ValueError: x is not a finite matrix.
    """

    def __init__(self, x: np.ndarray, kind: str) -> None:
        self._exact = FlatIndex(x)
        self.x, self.count = self._exact.x, len(x)
        self._scaled = _Scaled(self.x)
        self._proposer: _Proposer = _Graphs(self._scaled) if kind == "hnsw" else _Lists(self._scaled)

    def search(self, queries: np.ndarray, k: int, free: np.ndarray | None = None) -> Found:
        """About the k nearest rows of each query (q, d), of those that `free` (N,) allows, as `FlatIndex.search`."""
        faiss = _faiss()
        ask = min(k + _SPARE, self.count)

        def work(start: int, stop: int) -> np.ndarray:
            faiss.omp_set_num_threads(1)  # of this pool thread only
            return self._proposer.propose(self._scaled.of(queries[start:stop]), ask, free)

        parts = blocks.map_blocks(work, len(queries), _QUERIES)
        near = np.vstack(parts) if parts else np.empty((0, ask), np.int64)
        near = np.pad(near, ((0, 0), (0, max(0, k - near.shape[1]))), constant_values=-1)
        squares, ids = take_nearest(exact_squares(self.x, queries, near), near, k)
        short = np.flatnonzero((ids < 0).any(1))
        if len(short):
            ids[short], squares[short] = self._exact.search(queries[short], k, free)
        return ids, squares
