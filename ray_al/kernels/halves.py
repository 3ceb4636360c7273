"""16-bit rows in compiled loops, which know no float16: they read its bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numba.extending
import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.vectors import READS_HALVES


def loadable(x: np.ndarray) -> np.ndarray | None:
    """The memory of x as `wide` and `vectors.load_singles` read it, never to be written: float32, or the bits of
    float16; None for other types, where numbers are not side by side, and where the processor reads no float16."""
    if not x.flags.c_contiguous or x.dtype not in (np.float32, np.float16):
        return None
    rows: np.ndarray = blocks.borrow(x).numpy()  # loops are made for arrays that may be written
    if x.dtype == np.float32:
        return rows
    return rows.view(np.int16) if READS_HALVES else None


def wide(value: Any) -> Any:
    """A float32 as it is, and the bits of a float16 (int16) as float32: for compiled loops over either."""
    raise NotImplementedError  # compiled code has its own


@numba.extending.overload(wide, inline="always")
def _wide(value: Any) -> Callable[[Any], Any]:
    def as_it_is(value: Any) -> Any:
        return value

    def of_bits(value: Any) -> Any:
        return from_half(value)

    return of_bits if isinstance(value, numba.types.Integer) else as_it_is


@numba.njit
def from_half(bits: np.int16) -> np.float32:
    """The float32 of a float16's bits."""
    low = np.int32(np.int32(np.int32(bits) & np.int32(0x7FFF)) << np.int32(13))
    finite = low.view(np.float32) * np.float32(2.0**112)  # exponents begin 112 later; exact, also below the normal ones
    value = finite if low < np.int32(0x0F800000) else np.int32(low | np.int32(0x7F800000)).view(np.float32)
    return value if bits >= 0 else -value
