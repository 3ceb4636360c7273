"""From shards to the finished folder: one array per split, written in one pass with bounded memory."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ray_al.data.embeddings.shards import MANIFEST, ShardFolder, _draft, encode, write_whole
from ray_al.data.faults import DataError
from ray_al.data.items.listing import Items, Listing
from ray_al.data.names import names_digest

FAILURES = "failures.csv"
_CHUNK = 1 << 16  # items whose names are Python objects at a time
_PARTS = {"train": ("pool", "pool_labels"), "test": ("test", "test_labels")}  # as `datasets.fingerprint` calls them


def finish(folder: ShardFolder, listing: Listing, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write arrays, labels, names and failures, then the manifest, then drop the shards. Returns the manifest.

    Raises:
        DataError: a split of which no image could be decoded.
    """
    digest = hashlib.sha256()
    splits: dict[str, Any] = {}
    files: list[str] = []
    failed = {split: _failures(folder, split, len(items)) for split, items in listing.splits.items()}
    _write_failures(folder.path / FAILURES, listing, failed)
    for split, items in listing.splits.items():
        kept = np.setdiff1d(np.arange(len(items)), np.fromiter(failed[split], np.int64, len(failed[split])))
        if not len(kept):
            first = next(iter(failed[split].values()))
            raise DataError([f"none of the {len(items)} images of the {split} split could be decoded: {first}"])
        good = items.take(kept)
        width = _write_rows(folder, split, len(items), failed[split], digest)
        _write_labels(folder.path / f"{split}_labels.npy", good.labels, split, digest)
        _write_items(folder.path / f"{split}_items.parquet", good, listing.class_names)
        files += [f"{split}.npy", f"{split}_labels.npy", f"{split}_items.parquet"]
        splits[split] = {
            "rows": len(good),
            "width": width,
            "failed": len(failed[split]),
            "names": names_digest(good.names()),
        }
    manifest = {
        **settings,
        "fingerprint": digest.hexdigest(),
        "splits": splits,
        "class_names": list(listing.class_names),
        "files": {name: (folder.path / name).stat().st_size for name in files},
    }
    write_whole(folder.path / MANIFEST, encode(manifest))
    folder.drop_shards()
    return manifest


def refuse_failures(folder: ShardFolder, listing: Listing) -> None:
    """Raise DataError when an image could not be decoded, in the shards that are there or the finished folder."""
    done = folder.manifest() is not None
    for split, items in listing.splits.items():
        found = _listed_failures(folder.path, split) if done else _failures(folder, split, len(items))
        if found:
            item, reason = next(iter(found.items()))
            raise undecodable(next(items.names([item])), split, reason)


def undecodable(name: str, split: str, reason: str) -> DataError:
    """What --strict makes of an image."""
    return DataError([f"{name} of {split} cannot be decoded: {reason} (--strict)"])


def _listed_failures(folder: Path, split: str) -> dict[int, str]:
    with open(folder / FAILURES, newline="", encoding="utf-8") as source:
        return {int(row["item"]): row["reason"] for row in csv.DictReader(source) if row["split"] == split}


def _failures(folder: ShardFolder, split: str, items: int) -> dict[int, str]:
    found: dict[int, str] = {}
    missing = set(folder.missing(split, items))
    for shard in range(-(-items // folder.rows)):
        if shard not in missing:
            found |= folder.failures(split, shard)
    return found


def _write_rows(
    folder: ShardFolder, split: str, items: int, failed: Mapping[int, str], digest: hashlib._Hash
) -> int:  # fmt: skip
    """`<split>.npy` (rows that could be decoded, D), read-only, since others may share the file. Returns D."""
    first = folder.read(split, 0)
    dtype, width = first.dtype.newbyteorder("<"), first.shape[1]
    shape = (items - len(failed), width)
    path = folder.path / f"{split}.npy"
    digest.update(f"{_PARTS[split][0]}|{dtype.str}|{shape}|".encode())
    with _draft(path) as out:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(out, header)
        for block in _good_rows(folder, split, items, failed):
            data = np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data
            digest.update(data)
            out.write(data)
        os.fchmod(out.fileno(), 0o444)
    return int(width)


def _good_rows(folder: ShardFolder, split: str, items: int, failed: Mapping[int, str]) -> Iterator[np.ndarray]:
    for shard in range(-(-items // folder.rows)):
        rows, start = folder.read(split, shard), shard * folder.rows
        yield rows[[start + i not in failed for i in range(len(rows))]]


def _write_labels(path: Path, labels: np.ndarray, split: str, digest: hashlib._Hash) -> None:
    plain = np.ascontiguousarray(labels, "<i8")
    digest.update(f"{_PARTS[split][1]}|{plain.dtype.str}|{plain.shape}|".encode())
    digest.update(plain.data)
    with _draft(path) as out:
        np.save(out, plain, allow_pickle=False)


def _write_items(path: Path, items: Items, class_names: tuple[str, ...]) -> None:
    """Row i is what the i-th embedding is of: its name, and its class by name."""
    classes = np.array(class_names, object)
    schema = pa.schema([("name", pa.string()), ("label", pa.int32()), ("class", pa.string())])
    with _draft(path) as out, parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for start in range(0, len(items), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(items)))
            labels = items.labels[rows]
            columns = [list(items.names(rows)), labels.astype(np.int32), classes[labels].tolist()]
            writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))


def _write_failures(path: Path, listing: Listing, failed: Mapping[str, Mapping[int, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "item", "name", "reason"])
    for split, items in listing.splits.items():
        names = items.names(failed[split])
        writer.writerows(
            (split, item, name, reason) for (item, reason), name in zip(failed[split].items(), names, strict=True)
        )
    write_whole(path, text.getvalue().encode("utf-8", "backslashreplace"))
