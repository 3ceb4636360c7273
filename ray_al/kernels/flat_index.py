"""Exhaustive nearest-neighbor search over rows that stay where they are: in memory, or memory-mapped on disk."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import torch

from ray_al.kernels import blocks, distances
from ray_al.kernels.exact_search import error_share, rank_rows, scan_block, take_nearest
from ray_al.kernels.products import multiply

_QUERIES = 512  # per task
_ROWS = 2048  # per product: it stays in the cache between the product and the look at it
_SPARE = 16  # more neighbors than asked of a GPU: its float32 order is settled by exact distances
_GPU_BYTES = 2**31
_EXACT = {np.dtype(t) for t in ("float32", "float16", "uint8", "int8", "uint16", "int16")}  # fit float32 unchanged

_one_at_a_time = threading.Lock()  # faiss's GPU resources serve one call

Found = tuple[np.ndarray, np.ndarray]  # ids (q, k) int64 and squared distances (q, k) float64, by (distance, id)


class FlatIndex:
    """Exact Euclidean search among the rows of x (N, d).

    Reads x block by block and holds 4 bytes a row besides: x may be larger than memory. Numbers that float32 cannot
    hold are rounded to it. With `gpu`, where there is one, it ranks by float32 products and exact distances settle the
    order of the first; more rows at nearly one distance than it gives to spare may then be taken in another order.

    Raises:
        ValueError: x is not a finite matrix, or its squares overflow float32.
    """

    def __init__(self, x: np.ndarray, gpu: bool = False) -> None:
        blocks.check_matrix(x)
        self.x = x if x.dtype in _EXACT else x.astype(np.float32)
        self.count, self.width = x.shape
        self._rows = min(blocks.block_rows(self.width), _ROWS)
        self._shift = distances.center(self.x, np.arange(self.count))  # moved rows have smaller rounding
        self._low = np.empty(self.count, np.float32)  # squared norms less the possible error
        blocks.map_blocks(self._measure, self.count, self._rows)
        self._gpu = _gpu_resources() if gpu else None

    def _measure(self, start: int, stop: int) -> None:
        block = blocks.float_rows(self.x, start, stop)
        norms = (block - blocks.borrow(self._shift)).square_().sum(1)
        if not norms.max() < distances.LARGEST:
            blocks.check_finite(block, "x", start)
            raise ValueError(f"x is too large for squared distances from row {start}: {block.abs().max()}")
        self._low[start:stop] = norms.mul_(1 - error_share(self.width)).numpy()

    def search(self, queries: np.ndarray, k: int, free: np.ndarray | None = None) -> Found:
        """Each query's k nearest rows, of those that `free` (N,) bool allows; queries (q, d) float32.

        When there are fewer than k, ids end with -1 and squared distances with infinity.
        """
        if self._gpu is not None and k:
            return self._search_on_gpu(queries, k, free)
        low = self._low if free is None else np.where(free, self._low, np.float32(np.inf))
        starts = range(0, len(queries), _QUERIES)
        # Few queries leave threads idle unless the rows are shared out. How they are cut changes no answer.
        parts = max(1, blocks.threads() // max(len(starts), 1))
        step = -(-self.count // parts)
        tasks = [(q, r) for q in starts for r in range(0, self.count, step)]

        def work(task: tuple[int, int]) -> Found:
            q, r = task
            return self._scan(queries[q : q + _QUERIES], low, r, min(r + step, self.count), k)

        found = blocks.run(work, tasks)
        ids, squares = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        for q in starts:
            own = [part for part, (at, _) in zip(found, tasks, strict=True) if at == q]
            merged = take_nearest(np.hstack([s for _, s in own]), np.hstack([i for i, _ in own]), k)
            squares[q : q + _QUERIES], ids[q : q + _QUERIES] = merged
        return ids, squares

    def _scan(self, queries: np.ndarray, low: np.ndarray, start: int, stop: int, k: int) -> Found:
        """The heaps of some queries over rows [start, stop) of this index, in no order."""
        ids, squares = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf)
        if not k:
            return ids, squares
        shift = blocks.borrow(self._shift)
        own = torch.empty(queries.shape)
        own.copy_(blocks.borrow(queries))
        moved = own - shift  # (q, d)
        low_queries = moved.square().sum(1).double().numpy()
        if not low_queries.max(initial=0) < distances.LARGEST:
            raise ValueError(f"queries are not finite, or too large for squared distances: {own.abs().max()}")
        low_queries *= 1 - error_share(self.width)
        for at in range(start, stop, self._rows):
            end = min(at + self._rows, stop)
            rows = blocks.float_rows(self.x, at, end)
            products = multiply(moved, rows - shift)  # (q, n)
            scan_block(products.numpy(), low[at:end], rows.numpy(), at, own.numpy(), low_queries, squares, ids)
        return ids, squares

    def _search_on_gpu(self, queries: np.ndarray, k: int, free: np.ndarray | None) -> Found:
        """Blocks of free rows visit the GPU one after the other; what it finds in each is ranked exactly here."""
        import faiss

        assert self._gpu is not None
        moved = queries - self._shift
        step = max(1, _GPU_BYTES // (4 * self.width))
        ids, squares = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf)
        for at in range(0, self.count, step):
            names = np.arange(at, min(at + step, self.count))
            names = names if free is None else names[free[names]]
            if not len(names):
                continue
            rows = self.x[names].astype(np.float32) - self._shift
            # faiss takes no k above 2048 on a GPU.
            ask = min(k + _SPARE, len(names), 2048)
            with _one_at_a_time:
                _, places = faiss.knn_gpu(self._gpu, moved, rows, ask)
            found = np.where(places < 0, -1, names[places])
            merged = np.hstack([squares, exact_squares(self.x, queries, found)]), np.hstack([ids, found])
            squares, ids = take_nearest(*merged, k)
        return ids, squares


def exact_squares(x: np.ndarray, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(q, m) float64 squared distances of each query (q, d) to the rows ids (q, m) names; infinite for ids below 0."""
    step = max(1, (1 << 20) // max(ids.shape[1] * x.shape[1], 1))

    def work(start: int, stop: int) -> np.ndarray:
        named = np.ascontiguousarray(ids[start:stop])
        rows = x[np.maximum(named, 0).ravel()].astype(np.float32)
        squares = np.empty(named.shape)
        rank_rows(rows, named, np.ascontiguousarray(queries[start:stop], np.float32), squares)
        return squares

    parts = blocks.map_blocks(work, len(ids), step)
    return np.concatenate(parts) if parts else np.empty(ids.shape)


@functools.cache
def _gpu_resources() -> Any:
    """faiss's resources of the first GPU, shared; None where there is none, or faiss was built for CPUs."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    return faiss.StandardGpuResources()
