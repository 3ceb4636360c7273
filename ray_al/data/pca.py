"""Principal components that are the same to the last bit whatever the number of threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

BLOCK = 2048  # rows per block; part of the result's definition, because it fixes the order of the sums
MAX_WIDTH = 16384  # the covariance of more dimensions takes over 2 GB and hours
_MEMORY = 2_000_000_000  # bytes that the blocks in flight may take
_BLAS = threading.Lock()

Read = Callable[[int, int], np.ndarray]  # rows start..stop as (n, D) numbers


@dataclass(frozen=True)
class Pca:
    """x -> (x - mean) @ components. Components are columns, by falling variance; the largest entry is positive."""

    mean: np.ndarray  # (D,) float64
    components: np.ndarray  # (D, d) float64, scaled by 1 / deviation when whitened
    variances: np.ndarray  # (d,) float64, of the unscaled projections


def fit_pca(read: Read, rows: int, width: int, dims: int, whiten: bool = False) -> Pca:
    """Fit on all rows: two passes in float64, then the eigenvectors of the covariance.

    Raises:
        ValueError: whitening asks for dimensions along which the rows do not vary.
    """
    from scipy.linalg import eigh

    with _one_blas_thread():
        mean = np.zeros(width)
        for part in _blocks(lambda block: block.sum(0), read, rows, width):
            mean += part
        mean /= rows
        covariance = np.zeros((width, width))

        def gram(block: np.ndarray) -> np.ndarray:
            centered = block - mean
            product: np.ndarray = centered.T @ centered
            return product

        for part in _blocks(gram, read, rows, width, result=8 * width * width):
            covariance += part
        covariance /= max(1, rows - 1)
        values, vectors = eigh(covariance, subset_by_index=(width - dims, width - 1), overwrite_a=True)
    values, vectors = values[::-1], vectors[:, ::-1]
    peaks = vectors[np.abs(vectors).argmax(0), np.arange(dims)]  # (d,)
    vectors = vectors * np.where(peaks < 0, -1.0, 1.0)
    if whiten:
        solid = int((values > max(values[0], 0) * 1e-10).sum())
        if solid < dims:
            raise ValueError(f"whiten: only {solid} of {dims} dimensions vary; ask for dims: {solid} or fewer")
        vectors = vectors / np.sqrt(values)
    return Pca(mean, np.ascontiguousarray(vectors), np.maximum(values, 0))


def project(pca: Pca, read: Read, rows: int) -> Iterator[np.ndarray]:
    """(n, d) float32 blocks of the projected rows, in order."""
    with _one_blas_thread():
        yield from _blocks(
            lambda block: ((block - pca.mean) @ pca.components).astype(np.float32), read, rows, len(pca.mean)
        )


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS sums in another order with other thread counts. So it gets one thread, and blocks run side by side.

    One user at a time: the limit is the process's, and who leaves first would lift it for the other.
    """
    from threadpoolctl import threadpool_limits

    with _BLAS, threadpool_limits(1):
        yield


def _blocks(
    work: Callable[[np.ndarray], np.ndarray], read: Read, rows: int, width: int, result: int = 0
) -> Iterator[np.ndarray]:
    """`work` of each float64 block, by several threads, in the order of the rows; `result` is its size in bytes."""
    per_block = 3 * 8 * min(BLOCK, rows) * width + 2 * result
    workers = int(max(1, min(_cpus(), _MEMORY // max(1, per_block))))

    def one(start: int) -> np.ndarray:
        return work(np.asarray(read(start, min(start + BLOCK, rows)), np.float64))

    with ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[np.ndarray]] = deque()
        for start in range(0, rows, BLOCK):
            waiting.append(threads.submit(one, start))
            if len(waiting) > workers:  # no more blocks at once than memory is planned for
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
