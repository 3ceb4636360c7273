"""Features and labels from Parquet: numeric columns, or one column of equally long lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, choices


def read_parquet(path: Path, column: str | None, leave_out: str | None) -> np.ndarray:
    """One column (N,) or (N, D) when `column` is given, else all columns but `leave_out` as features (N, D).

    Raises:
        DataError: file or column missing, nulls, lists of unequal length, or columns that are no numbers.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not os.path.isfile(path):
        raise DataError([f"{path} is missing"])
    try:
        # One file: a path like .../split=a/x.parquet must not gain columns from its folder names.
        table = parquet.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError([f"{path} cannot be read as Parquet: {error}"]) from error
    names = table.column_names
    for name in (column, leave_out):
        if name is not None and name not in names:
            raise DataError([f"{path} has no column {name!r}{choices(name, names)}"])
    if column is not None:
        return _column(table[column], column, path)
    features = [name for name in names if name != leave_out]
    lists = [name for name in features if _is_list(table.schema.field(name).type)]
    if len(lists) > 1:
        raise DataError([f"{path} has several list columns ({', '.join(lists)}); name one as {path.name}:column"])
    if lists:
        return _column(table[lists[0]], lists[0], path)
    return _numbers(table, features, path)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers(table: Any, names: list[str], path: Path) -> np.ndarray:
    kinds = {name: table.schema.field(name).type for name in names}
    faults = [
        f"{path}: column {name!r} is {kind}; features are numeric columns or one list column (file.parquet:column)"
        for name, kind in kinds.items()
        if not _is_number(kind)
    ]
    if faults or not names:
        raise DataError(faults or [f"{path} has no feature columns"])
    columns = [_column(table[name], name, path) for name in names]
    dtype = np.float16 if all(c.dtype == np.float16 for c in columns) else np.float32
    out = np.empty((table.num_rows, len(names)), dtype)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the dataset's check names
        for position, values in enumerate(columns):
            out[:, position] = values
    return out


def _column(column: Any, name: str, path: Path) -> np.ndarray:
    """(N,) of a plain column, (N, D) of a list column."""
    import pyarrow as pa

    if column.null_count:
        raise DataError([f"{path}: column {name!r} has {column.null_count} empty (null) values"])
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not _is_list(whole.type):
        return np.asarray(whole.to_numpy(zero_copy_only=False))
    values = whole.flatten()
    width = len(values) // max(1, len(whole))
    if values.null_count or not _is_number(values.type):
        raise DataError([f"{path}: the lists of column {name!r} must hold numbers without nulls"])
    lengths = np.unique(whole.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise DataError(
            [f"{path}: the lists of column {name!r} have {lengths[0]} to {lengths[-1]} entries, not one length"]
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(whole), width)
