"""Datasets: their arrays and labels, after the options of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.dataset_spec import DatasetSpec, parse_dataset
from ray_al.data.faults import DataError
from ray_al.data.identity import fingerprint, read_only, subset_fingerprint
from ray_al.data.rows import Rows, take
from ray_al.data.sources import DATASETS, find_source
from ray_al.data.subsets import (
    Options,
    imbalanced_rows,
    limit_rows,
    noisy_labels,
    stratified_split,
)
from ray_al.data.validate import Arrays, check_arrays

__all__ = ["DATASETS", "DataError", "Dataset", "DatasetSpec", "fingerprint", "load_dataset", "parse_dataset"]


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the items come from: rows of the source's own splits, and what the source says of these."""

    rows: Mapping[str, tuple[str, np.ndarray | None]]  # "pool" and "test" -> (split, row ids; None: all)
    labels: Mapping[str, np.ndarray]  # split -> labels before any option
    names: Mapping[str, str]  # split -> digest of its item names, where the source knows names


@dataclass(frozen=True, eq=False)
class Dataset:
    """Arrays and labels of one dataset, read-only. Row i of the pool is pool id i."""

    spec: DatasetSpec
    label: str  # display name
    classes: int  # C
    kind: str  # "images" or "features"
    arrays: Mapping[str, Any]  # "pool" and "test": (N, H, W[, C]) uint8, or (N, D) float16/float32; or `Rows` of such
    pool_labels: np.ndarray  # (N,) int64 in 0..C-1
    test_labels: np.ndarray  # (M,) int64 in 0..C-1
    fingerprint: str  # hash of the four arrays alone: equal data, equal fingerprint, wherever it came from
    pixel_max: int = 255  # value of a white pixel
    class_names: tuple[str, ...] | None = None
    origin: Origin | None = None  # None: not loaded from a source
    files: Mapping[str, Path] = field(default_factory=dict)  # part -> file of exactly its rows, which never changes


def load_dataset(spec: DatasetSpec) -> Dataset:
    """Read, check and subset the arrays.

    Raises:
        DataError: with every fault found in the data.
    """
    try:
        source = find_source(spec.name)
        if source is None:
            raise DataError([f"{spec.name}.npz is not in the folder that RAY_AL_DATA names"])
        arrays, faults = check_arrays(source.load(**json.loads(spec.settings)))
        faults = faults + (_option_faults(arrays, spec.options) if arrays else [])
        if faults or arrays is None:
            raise DataError(faults)
        return _apply(arrays, spec)
    except DataError as error:
        raise DataError([f"dataset {spec.label!r}: {fault}" for fault in error.faults]) from error


def _option_faults(arrays: Arrays, options: Options) -> list[str]:
    """Options that do not fit the data; `limit` is checked later, against what classes and imbalance leave."""
    faults = []
    strange = [c for c in options.classes or () if c >= arrays.classes]
    if strange:
        faults.append(
            f"classes holds {', '.join(map(str, strange))}; the dataset has classes 0 to {arrays.classes - 1}"
        )
    if options.test_fraction is not None and arrays.test is not None:
        faults.append(f"test_fraction is {options.test_fraction:g}, but the dataset has a test split of its own")
    if arrays.test is None and np.bincount(arrays.train_labels).max() < 2:
        faults.append("every class has a single row, so no test split can be drawn; give a test split")
    if options.classes and arrays.test_labels is not None and not np.isin(arrays.test_labels, options.classes).any():
        faults.append(f"the test split has no rows of classes {', '.join(map(str, options.classes))}")
    return faults


def _apply(arrays: Arrays, spec: DatasetSpec) -> Dataset:
    """Splits and options, in the order that `Options` states. Rows are chosen by number and read last, or never."""
    options = spec.options
    names, classes, pixels = arrays.class_names, arrays.classes, "train"
    pool, pool_labels = np.arange(len(arrays.train_labels)), arrays.train_labels
    if arrays.test_labels is None:
        fraction = 0.2 if options.test_fraction is None else options.test_fraction
        pool, test = stratified_split(pool_labels, fraction, options.split_seed)
        pool_labels, test_labels = pool_labels[pool], pool_labels[test]
    else:
        pixels, test, test_labels = "test", np.arange(len(arrays.test_labels)), arrays.test_labels
    if options.classes is not None:
        place = np.full(classes, -1)
        place[list(options.classes)] = np.arange(len(options.classes))
        pool, pool_labels = _relabeled(pool, place[pool_labels])
        test, test_labels = _relabeled(test, place[test_labels])
        names = tuple(names[c] for c in options.classes) if names else None
        classes = len(options.classes)
    if options.imbalance != 1:
        rows = imbalanced_rows(pool_labels, options.imbalance, options.subset_seed)
        pool, pool_labels = pool[rows], pool_labels[rows]
    if options.limit is not None:
        _check_limit(options.limit, len(pool), classes)
        if options.limit < len(pool):
            rows = limit_rows(pool_labels, options.limit, options.subset_seed)
            pool, pool_labels = pool[rows], pool_labels[rows]
    if options.label_noise:
        pool_labels = noisy_labels(pool_labels, classes, options.label_noise, options.subset_seed)
    origin = Origin(
        rows={
            "pool": ("train", _some(pool, arrays.train_labels)),
            "test": (pixels, _some(test, arrays.labels[pixels])),
        },
        labels=arrays.labels,
        names=arrays.names,
    )
    return _dataset(spec, arrays, origin, classes, names, (pool_labels, test_labels))


def _some(rows: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """None when the rows are all rows."""
    return None if len(rows) == len(labels) and np.array_equal(rows, np.arange(len(rows))) else rows


def _check_limit(limit: int, size: int, classes: int) -> None:
    if limit > size:
        raise DataError([f"limit is {limit}, but the pool has only {size} rows (after classes and imbalance)"])
    if limit < classes:
        raise DataError([f"limit is {limit}, fewer than the {classes} classes; every class needs a row"])


def _relabeled(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = labels >= 0
    return rows[keep], labels[keep]


def _dataset(
    spec: DatasetSpec,
    arrays: Arrays,
    origin: Origin,
    classes: int,
    names: tuple[str, ...] | None,
    labels: tuple[np.ndarray, np.ndarray],
) -> Dataset:
    sources = {"train": arrays.train, "test": arrays.test}
    parts: dict[str, Any] = {}
    for part, (split, rows) in origin.rows.items():
        source = sources[split]
        assert source is not None
        parts[part] = take(read_only(source), rows)
    pool_labels, test_labels = (read_only(part) for part in labels)
    whole = {"pool_labels": pool_labels, "test_labels": test_labels}
    identity = _known_fingerprint(arrays, origin, whole) or fingerprint({**parts, **whole})
    return Dataset(
        spec=spec,
        label=spec.label,
        classes=classes,
        kind=arrays.kind,
        arrays={part: rows if isinstance(rows, Rows) else read_only(rows) for part, rows in parts.items()},
        pool_labels=pool_labels,
        test_labels=test_labels,
        fingerprint=identity,
        pixel_max=arrays.pixel_max,
        class_names=names,
        origin=origin,
        files={
            part: arrays.files[split]
            for part, (split, rows) in origin.rows.items()
            if rows is None and split in arrays.files
        },
    )


def _known_fingerprint(arrays: Arrays, origin: Origin, labels: Mapping[str, np.ndarray]) -> str | None:
    """That of the source, when the dataset is all of it, else made of it; None where the source's is not known."""
    if arrays.fingerprint is None:
        return None
    rows = {f"{part} of {split}": ids for part, (split, ids) in origin.rows.items()}
    same = list(rows) == ["pool of train", "test of test"] and not any(ids is not None for ids in rows.values())
    splits = {"pool_labels": "train", "test_labels": "test"}
    if same and all(np.array_equal(labels[part], arrays.labels[split]) for part, split in splits.items()):
        return arrays.fingerprint
    return subset_fingerprint(arrays.fingerprint, rows, labels)
