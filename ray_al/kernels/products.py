"""Products over blocks of rows: which may be fused, which may be rough, and the memory they are made in."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ray_al.kernels import blocks, distances

PANEL = 192  # columns of a fused product: wider ones are no faster
_STEP = 16  # widths are multiples of it, so that there are few shapes to check
_WORTH_A_ROUTINE = 3e7  # products of numbers: twice as many take torch.mm a millisecond
_KEPT = 1 << 23  # numbers (32 MB) of scratch memory that a thread keeps
_NOTHING = torch.empty(0)
_local = threading.local()


def _has_halves() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32: four times, where it has instructions for it."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


HALVES = _has_halves()


def _find_linear() -> Callable[..., torch.Tensor] | None:
    """oneDNN's product of float32 matrices, which compiled models of torch use, where the processor has AVX-512.

    torch.mm is MKL's, which takes half as wide instructions on AMD's processors as these have: half the speed.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    one = torch.ones((1, 1))
    try:
        routine: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise
        return routine if routine(one, one, None, "none", [], "").item() == 1 else None
    except (AttributeError, RuntimeError, TypeError):  # torch does not promise to keep it
        return None


_linear = _find_linear()


def multiply(one: torch.Tensor, other: torch.Tensor, room: str = "") -> torch.Tensor:
    """(m, n) products of the rows of one (m, d) with those of other (n, d), of one type.

    For shapes that come again and again: oneDNN makes a routine of each, which takes a millisecond. Where torch.mm does
    it, the result lies in this thread's scratch memory of the name `room`, if one is given.
    """
    if _linear is None or one.dtype != torch.float32:
        make = half_scratch if one.dtype == torch.bfloat16 else scratch
        out = make(room, len(one), len(other)) if room else None
        return torch.mm(one, other.T, out=out)
    return _linear(one, other, None, "none", [], "")


def multiply_once(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`multiply` for shapes that may not come again."""
    if len(one) * len(other) * one.shape[1] < _WORTH_A_ROUTINE:
        return torch.mm(one, other.T)
    return multiply(one, other)


def errors(width: int) -> tuple[np.float32, np.float32]:
    """Errors of a rough product of rows of `width` numbers: relative to the lengths of its factors, and, of its own
    rounding, to itself."""
    # bfloat16 has 8 significant bits: rounding a factor, or the result, changes it by up to 2^-8 of itself.
    halves, rounding = (2.01 * 2.0**-8, 1.01 * 2.0**-8) if HALVES else (0.0, 0.0)
    return np.float32(halves + distances.noise(width)), np.float32(rounding)


def widened(columns: Sequence[torch.Tensor], half: bool = False) -> torch.Tensor:
    """The rows of `columns` (c, d), joined, with zeros up to a width that products are made in; rounded to bfloat16 if
    `half`. Made without torch, whose threads the calling one would have to wake."""
    ends, width = np.cumsum([len(part) for part in columns]), columns[0].shape[1]
    out = torch.empty((-(-int(ends[-1]) // _STEP) * _STEP, width))
    rows = out.numpy()
    rows[ends[-1] :] = 0
    for part, end in zip(columns, ends, strict=True):
        rows[end - len(part) : end] = part.numpy()
    if not half:
        return out
    rounded = torch.empty(out.shape, dtype=torch.bfloat16)
    nothing, bits = np.empty((2, 0), np.float32), rounded.view(torch.uint16).numpy()
    distances.measure(rows, np.arange(len(rows)), np.zeros(width, np.float32), nothing, bits)
    return rounded


@functools.cache
def columns_are_stable(width: int, rows: int) -> bool:
    """Whether the columns of float32 products over blocks of `rows` rows have the same bits alone and among others.

    What a product's routine does depends on shapes, never on values: random numbers tell.
    """
    return blocks.alone(lambda: _columns_are_stable(width, rows))


def _columns_are_stable(width: int, rows: int) -> bool:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn((rows, width), generator=draw)
    columns = torch.randn((PANEL, width), generator=draw)
    whole = multiply(columns, x)
    for count in range(_STEP, PANEL, _STEP):
        if not torch.equal(multiply(columns[:count].clone(), x), whole[:count]):
            return False
    return all(torch.equal(multiply(columns.roll(by, 0), x), whole.roll(by, 0)) for by in (1, 5, 8))


def scratch(name: str, rows: int, width: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    """Uninitialized (rows, width) of this thread, used again: fresh memory costs a page fault every 4 KB."""
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = _local.__dict__.setdefault("kept", {})
    flat, last = kept.get(name, (_NOTHING, _NOTHING))
    if last.shape == (rows, width) and last.dtype == kind:
        return last  # each view made would be one more wait for the interpreter's lock
    size = -(-rows * width * kind.itemsize // _NOTHING.itemsize)
    if size > _KEPT:
        return torch.empty((rows, width), dtype=kind)
    flat = flat if len(flat) >= size else torch.empty(size)
    view = flat.view(kind)[: rows * width].view(rows, width)
    kept[name] = flat, view
    return view


def half_scratch(name: str, rows: int, width: int) -> torch.Tensor:
    """`scratch` in bfloat16."""
    return scratch(name, rows, width, torch.bfloat16)
