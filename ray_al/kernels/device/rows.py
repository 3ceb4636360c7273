"""One matrix resident on a device, and the products that everything else here is made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks

_STAGE_BYTES = 64 << 20  # of each of the two pinned buffers that an upload goes through
_CHUNK_ELEMENTS = 1 << 26  # rows are worked in chunks: 131072 of 512 numbers
_GROUP = 64  # values whose largest stands for them
_SAMPLE = 1 << 16  # rows whose mean is the center
_HALF_LIMIT = 30_000.0  # twice a point's numbers must stay in float16's range


class Frame(NamedTuple):
    """How rows enter products for distances, which do not change when all rows move.

    Half: float16 rows as they are, for tensor cores that accumulate in float32. Else float32 rows less their mean,
    which keeps the rounding small where the rows lie far from the origin.
    """

    half: bool
    shift: torch.Tensor  # (d,) float32; zeros for half
    norms: torch.Tensor  # (n,) float32 squared norms in this frame


class DeviceRows:
    """Rows [start, stop) of `matrix` (N, d), kept on the device as float16 or float32; uint8 becomes float16, exactly.

    The upload goes block by block, so the matrix may be a memory map larger than memory. Ids are those of the resident
    rows, 0..count-1: callers that hold a part of a pool subtract its start.

    Raises:
        ValueError: no numeric matrix, another type of numbers, NaN or infinite values, or a device that rounds float32
            products to TF32.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        start: int = 0,
        stop: int | None = None,
        device: str | torch.device = "cpu",
        chunk: int | None = None,
    ) -> None:
        blocks.check_matrix(matrix)
        stop = len(matrix) if stop is None else stop
        if not 0 <= start < stop <= len(matrix):
            raise ValueError(f"rows {start}..{stop} are no part of a matrix of {len(matrix)} rows")
        if matrix.dtype not in (np.float16, np.float32, np.uint8):
            raise ValueError(f"x is {matrix.dtype}; a device holds float16, float32 or uint8")
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        if self.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
            raise ValueError("float32 products round to TF32: set torch.set_float32_matmul_precision('highest')")
        self.count, self.width = stop - start, matrix.shape[1]
        self.chunk = chunk or min(max(_CHUNK_ELEMENTS // self.width, 1024), 1 << 17)
        self.x = self._upload(matrix, start, stop)
        self.largest = self._check()

    def _upload(self, matrix: np.ndarray, start: int, stop: int) -> torch.Tensor:
        """(n, d) on the device. Reading the next block overlaps the transfer of the last."""
        kind = {"float16": torch.float16, "float32": torch.float32, "uint8": torch.uint8}[matrix.dtype.name]
        wide = torch.float32 if kind == torch.float32 else torch.float16
        x = torch.empty((stop - start, self.width), dtype=wide, device=self.device)
        step = max(1, _STAGE_BYTES // (self.width * matrix.itemsize))
        if self.device.type != "cuda":
            for at in range(start, stop, step):
                x[at - start : at - start + step].copy_(blocks.borrow(matrix[at : min(at + step, stop)]))
            return x
        stages = [torch.empty((min(step, stop - start), self.width), dtype=kind, pin_memory=True) for _ in range(2)]
        sent = [torch.cuda.Event() for _ in stages]
        with torch.cuda.device(self.device):
            for turn, at in enumerate(range(start, stop, step)):
                stage, event = stages[turn % 2], sent[turn % 2]
                event.synchronize()  # an event never recorded is done
                part = stage[: min(step, stop - at)]
                np.copyto(part.numpy(), matrix[at : at + len(part)])
                x[at - start : at - start + len(part)].copy_(part, non_blocking=True)
                event.record()
            torch.cuda.synchronize(self.device)  # the buffers go out of use
        return x

    def _check(self) -> float:
        """The largest |x|; ValueError naming the first NaN or infinity."""
        largest = [torch.linalg.vector_norm(block, ord=torch.inf) for _, block in self.chunks()]
        most = float(torch.stack(largest).max())  # NaN and infinity come through
        if not np.isfinite(most):
            for at, block in self.chunks():
                bad = torch.nonzero(~torch.isfinite(block))[:1].tolist()
                if bad:
                    row, column = bad[0]
                    raise ValueError(f"x is {block[row, column].item()} at row {at + row}, column {column}")
        return most

    def chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and rows (n, d) of every chunk, as they are."""
        for start in range(0, self.count, self.chunk):
            yield start, self.x[start : start + self.chunk]

    @cached_property
    def frame(self) -> Frame:
        sample = self.x[:: max(1, self.count // _SAMPLE)].double()
        mean = sample.mean(0)
        spread = (sample - mean).square().sum(1).mean()
        near = bool(mean.square().sum() <= 4 * spread)
        half = self.x.dtype == torch.float16 and self.largest < _HALF_LIMIT and near
        shift = torch.zeros_like(mean, dtype=torch.float32) if half else mean.float()
        norms = torch.cat([(block.float() - shift).square_().sum(1) for _, block in self.chunks()])
        if not bool(torch.isfinite(norms.sum(dtype=torch.float64))):
            raise ValueError(f"x is too large for squared distances: {self.largest}")
        return Frame(half, shift, norms)

    def framed(self, block: torch.Tensor) -> torch.Tensor:
        """Rows as the frame has them: float16 as they are, or float32 less the shift."""
        return block if self.frame.half else block.float() - self.frame.shift

    def ids(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids).to(self.device)

    def doubles(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `ids` as they are, (m, d) float64."""
        return self.x[ids].double()


def wide_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (p, d) times b (n, d) transposed, (p, n) float32. Products of float16 are exact, their sums float32."""
    if a.dtype == b.dtype == torch.float16 and a.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):
        return torch.mm(a, b.T, out_dtype=torch.float32)
    return torch.mm(a.float(), b.float().T)


def kth_largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th largest of a vector, 1 <= k <= its length, as a tensor of no dimensions.

    k groups of rows have a largest value no less than the k-th largest of these, so the k largest values are among the
    few that reach it: two readings of the vector instead of one for every byte of its numbers.
    """
    groups = len(values) // _GROUP
    if groups >= 4 * k:
        least = values[: groups * _GROUP].view(groups, _GROUP).amax(1).topk(k, sorted=False).values.amin()
        values = values[values >= least]
    return values.topk(k, sorted=False).values.amin()


def taken_ids(count: int, k: int, *parts: tuple[str, np.ndarray]) -> np.ndarray:
    """The distinct ids of all named parts; ValueError unless k of the other `count` items can be picked."""
    taken = np.unique(
        np.concatenate([np.empty(0, np.int64), *(blocks.check_ids(ids, count, name) for name, ids in parts)])
    )
    available = count - len(taken)
    if not 0 <= k <= available:
        raise ValueError(f"k is {k}, but it must lie in 0..{available}: {available} of {count} items can be picked")
    return taken
