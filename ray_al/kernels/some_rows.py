"""Some rows of a matrix, gone over as if they were one of their own."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.passes import Rows
from ray_al.kernels.products import scratch


class SomeRows(Rows):
    """Rows `ids` of x (N, d), numbered from 0. Each pass reads them where they are: no copy is kept."""

    def __init__(self, x: np.ndarray, ids: np.ndarray) -> None:
        super().__init__(x)
        self.ids = ids
        self._cut(len(ids))

    def floats(self, start: int, stop: int) -> torch.Tensor:
        ids, out = self.ids[start:stop], scratch("raw", stop - start, self.width)
        if self.x.dtype != np.float32 or not self.x.flags.c_contiguous:  # of others `take` copies all
            return blocks.float_rows(self.x[ids], 0, len(ids), out=out)
        np.take(self.x, ids, 0, out=out.numpy(), mode="clip")  # other modes copy once more
        return out

    def places(self, ids: np.ndarray) -> np.ndarray:
        return self.ids[ids]
