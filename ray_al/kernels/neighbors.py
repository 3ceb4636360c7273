"""Exact nearest neighbors over one matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_al.kernels import blocks

_QUERIES = 1024
_SPARE = 8  # more neighbors than asked: faiss's float32 order is settled by exact distances among them


class NeighborIndex:
    """Euclidean nearest neighbors of rows of x (N, d), by faiss's flat index, in ids of x.

    The search is exhaustive. faiss ranks by float32 products; some more rows than asked are then ranked by exact
    distances, so only rows nearer to each other than float32 can tell may change places. Answers are the same bits
    whatever the number of threads. Among equally near rows the smaller id comes first. Holds a float32 copy of x.

    Raises:
        ValueError: x is not a finite matrix.
    """

    def __init__(self, x: np.ndarray) -> None:
        import faiss

        blocks.check_matrix(x)
        self.x = x
        self._faiss: Any = faiss
        self._index: Any = faiss.IndexFlatL2(x.shape[1])
        rows = blocks.block_rows(x.shape[1])
        # faiss works by float32 products: moving the rows about the origin keeps their rounding small.
        self._shift = blocks.center(x, np.arange(len(x)))
        for start in range(0, len(x), rows):
            block = blocks.float_rows(x, start, min(start + rows, len(x)), self._shift)
            blocks.check_finite(block, "x", start)
            self._index.add(block.numpy())

    def __len__(self) -> int:
        return len(self.x)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(q, k) ids by (distance, id) and float64 distances; queries (q, d) float32."""
        ask = min(k + _SPARE, len(self.x))

        def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            self._faiss.omp_set_num_threads(1)  # of this pool thread only
            part = queries[start:stop]
            _, ids = self._index.search(part - self._shift, ask)
            squares = np.empty(ids.shape)
            for row in range(len(part)):
                difference = self.x[ids[row]].astype(np.float64) - part[row]
                squares[row] = np.einsum("kd,kd->k", difference, difference)
            order = np.lexsort((ids, squares))[:, :k]
            return np.take_along_axis(ids, order, 1), np.sqrt(np.take_along_axis(squares, order, 1))

        parts = blocks.map_blocks(work, len(queries), _QUERIES)
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([distances for _, distances in parts])

    def nearest(self, queries: np.ndarray, exclude: np.ndarray) -> np.ndarray:
        """(q,) distinct int64 ids: each query's nearest item that is neither excluded nor taken by an earlier query.

        Raises:
            ValueError: queries (q, d) do not fit or are not finite, or there are fewer items left than queries.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.x.shape[1]:
            raise ValueError(f"queries {queries.shape} do not fit x {self.x.shape}")
        if not np.isfinite(queries).all():
            place = np.argwhere(~np.isfinite(queries))[0].tolist()
            raise ValueError(f"queries is {queries[tuple(place)]} at row {place[0]}, column {place[1]}")
        free = blocks.free_mask(len(self.x), len(queries), blocks.check_ids(exclude, len(self.x), "exclude"))
        out = np.full(len(queries), -1, np.int64)
        k, lists, begin = 16, np.empty((0, 0), np.int64), 0
        for row in range(len(queries)):
            while out[row] < 0:
                known = lists[row - begin] if row - begin < len(lists) else lists[:0, :0].ravel()
                open_ = known[free[known]]
                if len(open_):
                    out[row] = open_[0]
                    free[out[row]] = False
                    continue
                if lists.size and row - begin < len(lists):
                    k = min(4 * k, len(self.x))
                step = max(1, _QUERIES * 64 // k)
                begin, lists = row, self._search(queries[row : row + step], min(k, len(self.x)))[0]
        return out

    def graph(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(N, k) int64 ids and float32 distances of every item's k nearest others, nearest first.

        An item itself is left out by id: its duplicates stay.

        Raises:
            ValueError: k is not in 0..N-1.
        """
        count = len(self.x)
        if not 0 <= k < count:
            raise ValueError(f"k is {k}, but it must lie in 0..{count - 1}")
        ids = np.empty((count, k), np.int64)
        distances = np.empty((count, k), np.float32)
        for start in range(0, count, 8 * _QUERIES):
            stop = min(start + 8 * _QUERIES, count)
            found, far = self._search(blocks.float_rows(self.x, start, stop).numpy(), k + 1)
            keep = found != np.arange(start, stop)[:, None]
            keep[keep.all(1), -1] = False  # crowded out by k + 1 duplicates: any k of them will do
            ids[start:stop] = found[keep].reshape(stop - start, k)
            distances[start:stop] = far[keep].reshape(stop - start, k)
        return ids, distances
