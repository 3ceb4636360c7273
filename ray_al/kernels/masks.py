"""Which numbers of a vector meet a bar, in compiled loops: as a uint64, digit i for number i."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ray_al.kernels.vectors import Code, Vector, everywhere, intrinsic, of_row, place


@intrinsic
def reaching(typing: Any, row: Any, at: Any, low: Any) -> Code:
    """Of the vector of a row (w,) of bits from place `at` on: whose `compiled.ordered` is `low` or more."""
    vector, last = of_row(row), row.dtype.bitwidth - 1

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def all_of(value: int) -> Any:
            return ir.Constant(vector.code, [value] * vector.lanes)

        bits = _load(context, builder, vector, signature.args[0], values[0], values[1])
        turned = builder.and_(builder.ashr(bits, all_of(last)), all_of((1 << last) - 1))
        return _mask(
            builder, builder.icmp_signed(">=", builder.xor(bits, turned), everywhere(builder, vector, values[2]))
        )

    return types.uint64(row, types.intp, row.dtype), code


@intrinsic
def at_most(typing: Any, row: Any, bars: Any, at: Any) -> Code:
    """Of the vector of a row (w,) from place `at` on: which are at most their bars (w,). Not those that are NaN."""
    of_row(bars)
    vector = of_row(row)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        ours, theirs = (_load(context, builder, vector, signature.args[i], values[i], values[2]) for i in (0, 1))
        return _mask(builder, builder.fcmp_ordered("<=", ours, theirs))

    return types.uint64(row, row, types.intp), code


def _load(context: Any, builder: Any, vector: Vector, kind: Any, row: Any, at: Any) -> Any:
    found = builder.load(place(context, builder, vector, kind, (row, at)))
    found.align = vector.kind.bitwidth // 8
    return found


def _mask(builder: Any, flags: Any) -> Any:
    return builder.zext(builder.bitcast(flags, ir.IntType(flags.type.count)), ir.IntType(64))


@intrinsic
def lowest(typing: Any, mask: Any) -> Code:
    """The place of the lowest 1 among the digits of a uint64 that is not 0."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code
