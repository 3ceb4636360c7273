"""Vectors of numbers in compiled loops, as wide as the processor has them.

Numba's own vectors are half as wide on processors with AVX-512, and how many sums it keeps at once is its guess: loops
that know better say so here, and are 1.6 times as fast. Rows are read and written a vector at a time: what is left of
one is the caller's to do, or there is nothing left. Where rows begin at a cache line's start no access touches two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

LINE = 64  # bytes of a cache line


def _has(*features: str) -> bool:
    """Whether the processor has one of these."""
    try:
        return any(map(llvmlite.binding.get_host_cpu_features().get, features))
    except RuntimeError:  # the system does not tell
        return False


_BYTES = 64 if _has("avx512f") else 32
READS_HALVES = _has("f16c", "neon")  # as almost all: float16 numbers become float32 ones by an instruction
SINGLES, DOUBLES = _BYTES // 4, _BYTES // 8  # float32 and float64 numbers in a vector
SHORTS = _BYTES // 2  # 16-bit integers in a vector
_KINDS: dict[Any, Any] = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: ir.IntType(32),
    types.int16: ir.IntType(16),
}

Code = tuple[Any, Callable[..., Any]]  # a signature, and what writes the code


class Vector(types.Type):
    """As many numbers of one type as one instruction takes, or two."""

    def __init__(self, kind: Any) -> None:
        self.kind, self.lanes = kind, _BYTES * 8 // kind.bitwidth
        self.code = ir.VectorType(_KINDS[kind], self.lanes)
        super().__init__(name=f"Vector({kind} x {self.lanes})")


@numba.extending.register_model(Vector)
class _VectorModel(numba.extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.code)


def intrinsic(function: Callable[..., Code]) -> Any:
    """Compiled code calls it without the argument that numba gives."""
    return numba.extending.intrinsic(function)


def of_row(row: Any) -> Vector:
    """The vectors of a row's type; it must lie side by side."""
    if row.ndim != 1 or row.layout != "C":
        raise numba.errors.TypingError(f"a row of numbers side by side is wanted, not {row}")
    return Vector(row.dtype)


def place(context: Any, builder: Any, vector: Vector, row: Any, values: Any) -> Any:
    data = context.make_array(row)(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), vector.code.as_pointer())


@intrinsic
def load(typing: Any, row: Any, at: Any) -> Code:
    """The vector of numbers of a row (w,), side by side, from place `at` on."""
    vector = of_row(row)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found = builder.load(place(context, builder, vector, signature.args[0], values))
        found.align = row.dtype.bitwidth // 8
        return found

    return vector(row, types.intp), code


@intrinsic
def load_singles(typing: Any, row: Any, at: Any) -> Code:
    """`load` of float32 numbers, or of float16 ones, whose bits are given as int16, as float32."""
    return _load_as(types.float32, row)


@intrinsic
def load_doubles(typing: Any, row: Any, at: Any) -> Code:
    """`load_singles`, or `load` of float64 numbers, as float64."""
    return _load_as(types.float64, row)


def _load_as(kind: Any, row: Any) -> Code:
    of_row(row)
    vector = Vector(kind)
    source = ir.VectorType(ir.HalfType() if row.dtype == types.int16 else _KINDS[row.dtype], vector.lanes)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        found = builder.load(builder.bitcast(builder.gep(data, [values[1]]), source.as_pointer()))
        found.align = row.dtype.bitwidth // 8
        return found if source == vector.code else builder.fpext(found, vector.code)

    return vector(row, types.intp), code


@intrinsic
def store(typing: Any, row: Any, at: Any, vector: Any) -> Code:
    """Write a vector to a row (w,), from place `at` on."""
    of_row(row)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], place(context, builder, vector, signature.args[0], values)).align = (
            row.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    return types.void(row, types.intp, vector), code


@intrinsic
def spread(typing: Any, value: Any) -> Code:
    """A vector of one number, again and again."""
    vector = Vector(value)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return everywhere(builder, vector, values[0])

    return vector(value), code


def everywhere(builder: Any, vector: Vector, value: Any) -> Any:
    """Code of `spread`."""
    nothing, places = ir.Constant(vector.code, ir.Undefined), ir.VectorType(ir.IntType(32), vector.lanes)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(places, [0] * vector.lanes))


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Code:
    """a * b + c: each number rounded once where the processor has an instruction for it, and twice where not."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = "f32" if a.kind == types.float32 else "f64"
        form = ir.FunctionType(a.code, [a.code] * 3)
        return builder.call(
            cgutils.get_or_insert_function(builder.module, form, f"llvm.fmuladd.v{a.lanes}{kind}"), values
        )

    return a(a, a, a), code


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Code:
    """a + b."""
    return a(a, a), lambda context, builder, signature, values: builder.fadd(*values)


@intrinsic
def subtract(typing: Any, a: Any, b: Any) -> Code:
    """a - b."""
    return a(a, a), lambda context, builder, signature, values: builder.fsub(*values)


@intrinsic
def total(typing: Any, vector: Any) -> Code:
    """The sum of a vector's numbers: of its two halves, of the two halves of what they give, and so on."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found, lanes = values[0], vector.lanes
        while lanes > 1:
            lanes //= 2
            places = ir.VectorType(ir.IntType(32), lanes)
            halves = [ir.Constant(places, list(range(start, start + lanes))) for start in (0, lanes)]
            low, high = (builder.shuffle_vector(found, ir.Constant(found.type, ir.Undefined), half) for half in halves)
            found = builder.fadd(low, high)
        return builder.extract_element(found, ir.Constant(ir.IntType(32), 0))

    return vector.kind(vector), code


@intrinsic
def store_totals(typing: Any, row: Any, at: Any, vectors: Any) -> Code:
    """Write the sums of the numbers of each of `vectors`, a tuple of a power of two of them, no fewer than a vector has
    numbers, to a row (w,) from place `at` on: many at once take half the work of `total` for each."""
    vector = vectors.dtype

    def fold(builder: Any, a: Any, b: Any, width: int) -> Any:
        """Halves of blocks of so many numbers added to each other: those of a, then those of b."""
        places = ir.VectorType(ir.IntType(32), vector.lanes)
        first = [k for k in range(2 * vector.lanes) if k % width < width // 2]
        low, high = (ir.Constant(places, [k + more for k in first]) for more in (0, width // 2))
        return builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts, width = [builder.extract_value(values[2], i) for i in range(vectors.count)], vector.lanes
        while width > 1:
            parts = [fold(builder, a, b, width) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            width //= 2
        for number, part in enumerate(parts):
            where = builder.add(values[1], ir.Constant(values[1].type, number * vector.lanes))
            target = place(context, builder, vector, signature.args[0], (values[0], where))
            builder.store(part, target).align = row.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(row, types.intp, vectors), code


def aligned(like: np.ndarray, rows: int, width: int) -> np.ndarray:
    """Uninitialized (rows, width) of the type of `like`, that begins at a cache line's start. For Python: where a
    function is compiled for it and within others, code from the cache may not know how to hand an array over."""
    size, each = rows * width, like.itemsize
    raw = np.empty(size + LINE // each, like.dtype)
    skip = (-raw.ctypes.data % LINE) // each
    return raw[skip : skip + size].reshape((rows, width))


lined_up = numba.njit(cache=True)(aligned)  # for compiled loops


@numba.njit(cache=True)
def copied(x: np.ndarray) -> np.ndarray:
    """x (rows, width), where `lined_up` puts it. By loops: an assignment of arrays takes seconds to compile."""
    out = lined_up(x, x.shape[0], x.shape[1])
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = x[i, k]
    return out
