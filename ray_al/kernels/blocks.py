"""Fixed row blocks over a thread pool: the same bits whatever the number of threads.

Every block is worked by single-threaded torch operations and results are joined in block order, so neither the pool's
size nor what else runs on the machine can change a result. Torch releases the GIL, so the blocks do run in parallel.
Operands of matrix products are allocated by torch, never numpy memory: the products' bits depend on its alignment,
which is 64 bytes for torch, and for numpy, files and shared memory anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

T = TypeVar("T")
R = TypeVar("R")

THREADS_VARIABLE = "RAY_AL_THREADS"
BLOCK_ELEMENTS = 1 << 20  # 4 MB of float32: large against the cost of a call, small against the cache

_lock = threading.Lock()
_local = threading.local()
_pool: ThreadPoolExecutor | None = None
_threads: int | None = None


def threads() -> int:
    """The pool's size: `set_threads`, else the variable RAY_AL_THREADS, else the processors this process may use."""
    if _threads is not None:
        return _threads
    if THREADS_VARIABLE in os.environ:
        return _positive(os.environ[THREADS_VARIABLE])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def set_threads(count: int | None) -> None:
    """Use `count` threads from now on; None goes back to the default. Calls under way finish in the old pool."""
    global _pool, _threads
    with _lock:
        _threads = None if count is None else _positive(count)
        _pool = None


def _positive(count: int | str) -> int:
    try:
        value = int(count)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError(f"the number of kernel threads is a positive integer, got {count!r}")
    return value


def _enter_worker() -> None:
    _local.worker = True
    torch.get_num_threads()  # torch's first use in a thread takes the process's number: have it before setting ours
    torch.set_num_threads(1)
    _one_mkl_thread()


def _one_mkl_thread() -> None:
    """MKL's number of threads is the process's, set by the last `torch.set_num_threads` of any thread, and changes
    the last bits of products and factorizations; a worker keeps a number of its own."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    with contextlib.suppress(OSError, AttributeError):  # a build without MKL, or another system
        ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local(1)


def _forget_pool() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def _start_pool(count: int) -> ThreadPoolExecutor:
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="ray-al-kernels", initializer=_enter_worker)
    barrier = threading.Barrier(count)
    list(pool.map(lambda _: barrier.wait(), range(count)))  # no worker ends before all have started
    # torch keeps one number per thread, and hands the last one set to threads that come later: give it back.
    torch.set_num_threads(before)
    return pool


def run(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return [work(item) for item in items], worked in parallel; inside a worker, in place.

    After an error no further item is begun. That of the first item that has one is raised, whichever came first.
    """
    global _pool
    if getattr(_local, "worker", False):
        return [work(item) for item in items]
    with _lock:
        if _pool is None:
            _pool = _start_pool(threads())
        pool = _pool
    shares = _Shares(work, list(items))
    # One task per thread: a future for every item would hold the interpreter's lock longer than many items' work does.
    futures = [pool.submit(shares.take) for _ in range(min(len(shares.items), threads()))]
    try:
        for number, future in enumerate(futures):
            if number == 0 or not future.cancel():  # once one has ended nothing is left to those that have not begun
                future.result()
    finally:
        shares.end()  # also where this thread is interrupted
    return shares.joined()


class _Shares(Generic[T, R]):
    """Items that threads take one by one."""

    def __init__(self, work: Callable[[T], R], items: list[T]) -> None:
        self.work, self.items = work, items
        self.results: list[Any] = [None] * len(items)
        self.errors: dict[int, BaseException] = {}
        self.numbers = iter(range(len(items)))  # each number goes to one thread: the interpreter's lock is held for it

    def take(self) -> None:
        for number in self.numbers:
            try:
                self.results[number] = self.work(self.items[number])
            except BaseException as error:
                self.errors[number] = error
                self.end()

    def end(self) -> None:
        for _ in self.numbers:
            pass

    def joined(self) -> list[R]:
        """The results. Items are begun in order, so the first that fails is always begun."""
        if not self.errors:
            return self.results
        try:
            raise self.errors[min(self.errors)]
        finally:
            self.errors.clear()  # they hold the frames that hold them


def alone(work: Callable[[], R]) -> R:
    """Run small torch work in one pool thread. In the calling one it would use torch's own threads: bits that depend on
    their number, and long waits for each other on a busy machine."""
    return run(lambda _: work(), (None,))[0]


def block_rows(width: int) -> int:
    """Rows per block for rows of `width` numbers: a power of two that depends on nothing else."""
    rows = BLOCK_ELEMENTS // max(width, 1)
    return 1 << (min(max(rows, 256), 8192).bit_length() - 1)


def map_blocks(work: Callable[[int, int], R], count: int, rows: int) -> list[R]:
    """Return [work(start, stop)] over consecutive blocks of `rows` rows of 0..count-1."""
    return run(lambda start: work(start, min(start + rows, count)), range(0, count, rows))


class _Borrowed:
    """A read-only array's memory under an interface that does not say so: torch warns of read-only arrays."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__array_interface__: dict[str, Any] = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def borrow(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory, to be read only. Strided arrays are copied."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Borrowed(array)))


def float_rows(
    x: np.ndarray, start: int, stop: int, shift: np.ndarray | None = None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Rows [start, stop) of x as a float32 tensor, `out` or a fresh one, less `shift` (d,) when given."""
    block = x[start:stop]
    out = torch.empty(block.shape, dtype=torch.float32) if out is None else out
    if block.dtype == np.float32 and shift is not None:
        np.subtract(block, shift, out=out.numpy())
        return out
    _convert(block, out)
    return out if shift is None else out.sub_(borrow(shift))


def double_rows(x: np.ndarray, shift: np.ndarray | None = None) -> torch.Tensor:
    """x as a float64 tensor, less `shift`."""
    out = torch.empty(x.shape, dtype=torch.float64)
    _convert(x, out)
    return out if shift is None else out.sub_(torch.from_numpy(shift.astype(np.float64)))


def _convert(x: np.ndarray, out: torch.Tensor) -> None:
    if x.dtype == np.float16:  # numpy's own conversion is 20 times slower
        out.copy_(borrow(x))
    else:
        np.copyto(out.numpy(), x, casting="unsafe")


def check_matrix(x: np.ndarray, name: str = "x") -> None:
    """Raise ValueError unless x is a real (N, d) matrix with N, d >= 1."""
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiu":
        raise ValueError(f"{name} is a numeric matrix (N, d), got shape {x.shape} of {x.dtype}")


def check_finite(block: torch.Tensor, name: str, start: int = 0) -> None:
    """Raise ValueError naming the first NaN or infinity of a block of rows that begins at row `start`."""
    # The sum is finite when all is finite, unless it overflows: the slow look decides.
    if torch.isfinite(block.sum()):
        return
    bad = torch.nonzero(~torch.isfinite(block))
    if len(bad):
        place = bad[0].tolist()
        raise ValueError(f"{name} is {block[tuple(place)].item()} at row {start + place[0]}, column {place[1]}")


def check_ids(ids: np.ndarray, count: int, name: str) -> np.ndarray:
    """The ids as int64; ValueError when one is not in 0..count-1."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name} is a vector of integer ids, got shape {ids.shape} of {ids.dtype}")
    ids = ids.astype(np.int64)
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise ValueError(f"{name} holds id {wrong[0]}, outside 0..{count - 1}")
    return ids


def free_mask(count: int, k: int, *taken: np.ndarray) -> np.ndarray:
    """(count,) bool, False at the taken ids; ValueError unless k of the others can be picked."""
    free = np.ones(count, bool)
    for ids in taken:
        free[ids] = False
    available = int(free.sum())
    if not 0 <= k <= available:
        raise ValueError(f"k is {k}, but it must lie in 0..{available}: {available} of {count} items can be picked")
    return free
