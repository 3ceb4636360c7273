"""Parquet of encoded images, as Hugging Face datasets write it: a column of bytes or of {bytes, path}, and labels."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ray_al.data.faults import DataError, choices
from ray_al.data.items.listing import Found, NoImageError, key_array

_TRAIN, _TEST = ("train", "training"), ("test", "validation", "valid", "val")


@dataclass(frozen=True)
class ParquetPart:
    """One file; a key is the number of the row, as text."""

    path: str
    column: str

    @property
    def prefix(self) -> str:
        return f"{Path(self.path).name}:"

    def open(self) -> _ParquetReader:
        return _ParquetReader(self.path, self.column)


class _ParquetReader:
    """Reads by row group and keeps the last one: neighboring rows are asked for together."""

    def __init__(self, path: str, column: str) -> None:
        self._file = parquet.ParquetFile(path)
        self._column = column
        self._held: tuple[int, pa.ChunkedArray] | None = None

    @cached_property
    def _starts(self) -> list[int]:
        meta = self._file.metadata
        return np.cumsum([0] + [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]).tolist()

    def read(self, key: bytes) -> bytes:
        row = int(key)
        group = bisect.bisect_right(self._starts, row) - 1
        if self._held is None or self._held[0] != group:
            self._held = group, self._file.read_row_group(group, columns=[self._column]).column(0)
        value = self._held[1][row - self._starts[group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise NoImageError("the row holds no bytes")
        return bytes(data)


def list_parquet(path: Path, image: str | None = None, label: str | None = None) -> dict[str, list[Found]]:
    """PATH is a file, or a folder searched to any depth; rows go by file name, then as they lie in the file.

    Files or folders named train... are train, those named test... test, or validation... (valid, val) if there is no
    test; when no name begins so, all is train.

    `image` and `label` name the columns; without them, the only column of images and the column `label` are taken.

    Raises:
        DataError: no Parquet there, or columns that are missing, ambiguous or of a wrong type.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith("."))
    else:
        raise DataError([f"{path} is missing"])
    if not files:
        raise DataError([f"{path} holds no .parquet files"])
    root = path if path.is_dir() else path.parent
    chosen = _splits(files, root)
    return {split: [_list_file(file, image, label) for file in chosen[split]] for split in chosen}


def _splits(files: list[Path], root: Path) -> dict[str, list[Path]]:
    def begins(file: Path, word: str) -> bool:
        return any(part.lower().startswith(word) for part in file.relative_to(root).parts)

    train = [file for file in files if any(begins(file, word) for word in _TRAIN)]
    if not train:
        return {"train": files}
    rest = [file for file in files if file not in train]
    for word in _TEST:
        if test := [file for file in rest if begins(file, word)]:
            return {"train": train, "test": test}
    return {"train": train}


def _list_file(path: Path, image: str | None, label: str | None) -> Found:
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        column = _image_column(path, schema, image)
        labels, classes = _labels(path, file, schema, label)
        meta = file.metadata
    except (pa.ArrowException, OSError) as error:
        raise DataError([f"{path} cannot be read as Parquet: {error}"]) from error
    if not meta.num_rows:
        raise DataError([f"{path} has no rows"])
    # The format does not say how long each image is; the compressed size of its row group stands for it.
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    sizes = np.repeat([g.total_byte_size for g in groups], [g.num_rows for g in groups]).astype(np.int64)
    keys = key_array(str(row).encode() for row in range(meta.num_rows))
    return Found(ParquetPart(str(path), column), keys, sizes, labels, classes)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _image_column(path: Path, schema: pa.Schema, given: str | None) -> str:
    images = [field.name for field in schema if _is_image(field.type)]
    if given is not None:
        if given not in schema.names:
            raise DataError([f"{path} has no column {given!r}{choices(given, schema.names)}"])
        if given not in images:
            kind = schema.field(given).type
            raise DataError([f"{path}: column {given!r} is {kind}; images are bytes, or a struct with a field bytes"])
        return given
    if len(images) != 1:
        found = f"several columns of images ({', '.join(images)})" if images else "no column of bytes"
        raise DataError([f"{path} has {found}; name one with --image-column (columns: {', '.join(schema.names)})"])
    return images[0]


def _labels(
    path: Path, file: parquet.ParquetFile, schema: pa.Schema, given: str | None
) -> tuple[np.ndarray, list[str]]:
    """(n,) positions in the class names: those that Hugging Face wrote beside integer labels, else the values."""
    name = given or "label"
    if name not in schema.names:
        hint = "" if given else "; name the labels with --label-column"
        raise DataError([f"{path} has no column {name!r}{hint}{choices(name, schema.names)}"])
    column = file.read(columns=[name]).column(0)
    if column.null_count:
        raise DataError([f"{path}: column {name!r} has {column.null_count} empty (null) values"])
    if pa.types.is_integer(column.type):
        return _whole_numbers(path, name, column.to_numpy().astype(np.int64), schema)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values, places = np.unique(np.array(column.to_pylist(), object), return_inverse=True)
        return places.astype(np.int64), [str(value) for value in values]
    raise DataError([f"{path}: column {name!r} is {column.type}; labels are whole numbers or texts"])


def _whole_numbers(path: Path, name: str, labels: np.ndarray, schema: pa.Schema) -> tuple[np.ndarray, list[str]]:
    if len(labels) and (labels.min() < 0 or labels.max() >= 2**31):
        raise DataError(
            [f"{path}: column {name!r} has values from {labels.min()} to {labels.max()}; labels are 0..C-1"]
        )
    written = _hugging_face_names(schema, name)
    if written and (not len(labels) or labels.max() < len(written)):
        return labels, written
    values, places = np.unique(labels, return_inverse=True)
    return places.astype(np.int64), [str(value) for value in values]


def _hugging_face_names(schema: pa.Schema, column: str) -> list[str] | None:
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
        return [str(name) for name in names] if isinstance(names, list) else None
    except (KeyError, TypeError, ValueError):
        return None
