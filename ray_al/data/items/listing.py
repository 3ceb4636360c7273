"""A listing: every image of a split, in the order of its rows, as compact Arrow columns instead of Python objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from ray_al.data.names import item_name, names_digest

SPLITS = ("train", "test")
_CHUNK = 1 << 16  # items handled as Python objects at a time


class NoImageError(Exception):
    """The item is there and was read, but is empty: one broken item, and no fault of the storage."""


class Reader(Protocol):
    """An opened part. One per process; not shared between threads."""

    def read(self, key: bytes) -> bytes:
        """The encoded image. Raises OSError when it cannot be read, KeyError when it is not there, NoImageError."""
        ...


class Part(Protocol):
    """One physical place of images: a folder, an LMDB, a Parquet file. Small and picklable: it travels to workers."""

    @property
    def prefix(self) -> str:
        """What item names of this part begin with."""
        ...

    def open(self) -> Reader: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Found:
    """The items of one part, in order: what a source's lister finds. Classes are names until sources are joined."""

    part: Part
    keys: pa.Array  # (n,) large_binary: by which the part's reader finds an item
    sizes: np.ndarray  # (n,) int64 bytes of each encoded image, 0 where the format does not say
    labels: np.ndarray  # (n,) int64, positions in `classes`
    classes: Sequence[str]


@dataclass(frozen=True)
class Items:
    """One split: row i is `keys[i]` of `parts[part[i]]`."""

    parts: tuple[Part, ...]
    part: np.ndarray  # (n,) int32
    keys: pa.ChunkedArray  # (n,) large_binary
    sizes: np.ndarray  # (n,) int64
    labels: np.ndarray  # (n,) int64 in 0..C-1

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, rows: Iterable[int] | None = None) -> Iterator[str]:
        """Names of all items in order, or of the given rows."""
        if rows is not None:
            yield from (self._name(int(self.part[row]), self.keys[int(row)].as_py()) for row in rows)
            return
        for start in range(0, len(self), _CHUNK):
            keys = self.keys.slice(start, _CHUNK).to_pylist()
            for part, key in zip(self.part[start : start + _CHUNK].tolist(), keys, strict=True):
                yield self._name(part, key)

    def take(self, rows: np.ndarray) -> Items:
        """The items of `rows` (n,), in that order."""
        keys = self.keys.take(pa.array(rows))
        return Items(self.parts, self.part[rows], keys, self.sizes[rows], self.labels[rows])

    def _name(self, part: int, key: bytes) -> str:
        return self.parts[part].prefix + item_name(key)


@dataclass(frozen=True)
class Listing:
    """What sources hold: items per split, and the names of the classes."""

    splits: Mapping[str, Items]  # "train", and "test" if there is one
    class_names: tuple[str, ...]

    def limited(self, limit: int | None) -> Listing:
        """At most `limit` items per split, evenly spaced over its rows, so that sorted classes all keep their share."""
        if limit is None:
            return self
        kept = {
            split: items.take(np.arange(limit) * len(items) // limit) if len(items) > limit else items
            for split, items in self.splits.items()
        }
        return Listing(kept, self.class_names)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names, sizes and labels of all items in order: a changed source has another."""
        digest = hashlib.sha256("\0".join(self.class_names).encode(errors="surrogateescape"))
        for split, items in self.splits.items():
            digest.update(f"\n{split}|{len(items)}|{names_digest(items.names())}|".encode())
            for numbers in (items.sizes, items.labels):
                digest.update(np.ascontiguousarray(numbers, "<i8").data)
        return digest.hexdigest()


def class_order(found: Sequence[Found]) -> list[str]:
    """The classes of all parts: in their own order where all agree on one, else sorted."""
    first = list(found[0].classes)
    if all(list(one.classes) == first for one in found):
        return first
    names = {name for one in found for name in one.classes}
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def join(found: Sequence[Found], class_names: Sequence[str]) -> Items:
    """The parts of one split one after the other, labels counted in `class_names`, which hold all their classes."""
    place = {name: number for number, name in enumerate(class_names)}
    labels = [np.array([place[name] for name in one.classes], np.int64)[one.labels] for one in found]
    return Items(
        parts=tuple(one.part for one in found),
        part=np.repeat(np.arange(len(found), dtype=np.int32), [len(one.labels) for one in found]),
        keys=pa.chunked_array([one.keys for one in found], pa.large_binary()),
        sizes=np.concatenate([one.sizes for one in found]),
        labels=np.concatenate(labels),
    )


def key_array(keys: Iterable[bytes]) -> pa.Array:
    return pa.array(keys, pa.large_binary())


def batch_table(items: Items, split: str, rows: range) -> pa.Table:
    """The items start..stop of `rows` as batches of `rows.step`, a row each: split, row, parts and keys (lists)."""
    starts = list(rows)
    ends = [min(start + rows.step, rows.stop) for start in starts]
    return pa.table(
        {
            "split": pa.array([split] * len(starts)),
            "row": pa.array(starts, pa.int64()),
            "parts": pa.array(
                [items.part[a:b].tolist() for a, b in zip(starts, ends, strict=True)], pa.list_(pa.int32())
            ),
            "keys": pa.array(
                [items.keys.slice(a, b - a).to_pylist() for a, b in zip(starts, ends, strict=True)],
                pa.list_(pa.large_binary()),
            ),
        }
    )
