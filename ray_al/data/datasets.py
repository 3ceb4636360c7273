"""Datasets: what a sweep file says of one (DatasetSpec), and its arrays in memory (Dataset)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, choices, shown, text
from ray_al.data.sources import DATASETS, data_names, find_source, is_python_path
from ray_al.data.subsets import (
    OPTION_CHECKS,
    Options,
    imbalanced_rows,
    limit_rows,
    noisy_labels,
    stratified_split,
)
from ray_al.data.validate import Arrays, check_arrays

__all__ = ["DATASETS", "DataError", "Dataset", "DatasetSpec", "fingerprint", "load_dataset", "parse_dataset"]


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as a sweep names it. Equal and of equal hash when all but the display name is equal."""

    name: str
    settings: str = "{}"  # the source's own options, as canonical JSON
    options: Options = field(default_factory=Options)
    label: str = field(default="", compare=False)

    def to_mapping(self) -> dict[str, Any]:
        """The entry that parses back to this spec."""
        return {"name": self.name, "label": self.label, **json.loads(self.settings), **self.options.given()}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Arrays and labels of one dataset, read-only. Row i of the pool is pool id i."""

    spec: DatasetSpec
    label: str  # display name
    classes: int  # C
    kind: str  # "images" or "features"
    arrays: Mapping[str, np.ndarray]  # "pool" and "test": (N, H, W[, C]) uint8, or (N, D) float16/float32
    pool_labels: np.ndarray  # (N,) int64 in 0..C-1
    test_labels: np.ndarray  # (M,) int64 in 0..C-1
    fingerprint: str  # hash of the four arrays alone: equal data, equal fingerprint, wherever it came from
    pixel_max: int = 255  # value of a white pixel
    class_names: tuple[str, ...] | None = None


def parse_dataset(value: str | Mapping[str, Any], where: str = "dataset") -> DatasetSpec:
    """Check a dataset entry of a sweep file; `where` names its place in messages. Reads no data.

    Raises:
        DataError: with every fault of the entry.
    """
    entry = {"name": value} if isinstance(value, str) else value
    if not isinstance(entry, Mapping):
        raise DataError([f"{where}: a dataset is a name or a mapping with `name:`, not {shown(value)}"])
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise DataError([f"{where}: the dataset has no name{choices(name, [*DATASETS, *data_names()])}"])
    source = find_source(name)
    if source is None:
        known = choices(name, [*DATASETS, *data_names()])
        raise DataError(
            [f"{where}: unknown dataset {shown(name)}{known}; or an own function as 'package.module:function'"]
        )
    checks = {**source.options, **OPTION_CHECKS, "label": text}
    settings: dict[str, Any] = {}
    common: dict[str, Any] = {}
    faults = [f"{where}: {key} is missing for dataset {name!r}" for key in source.required if key not in entry]
    for key, given in entry.items():
        if key == "name":
            continue
        if key not in checks and not (is_python_path(name) and isinstance(key, str)):
            faults.append(f"{where}: unknown option {shown(key)} for dataset {name!r}{choices(key, checks)}")
        elif fault := checks[key](given) if key in checks else _plain(given):
            faults.append(f"{where}: {key} is {shown(given)}; it {fault}")
        elif key in OPTION_CHECKS:
            common[key] = tuple(given) if isinstance(given, list) else given
        elif key != "label":
            settings[key] = given
    if not faults:
        faults += [f"{where}: {fault}" for fault in source.check(settings)]
    if faults:
        raise DataError(faults)
    options = Options(**common)
    spec = DatasetSpec(name, json.dumps(settings, sort_keys=True, separators=(",", ":")), options)
    return replace(spec, label=entry.get("label") or _display_name(name, settings, options))


def _plain(value: Any) -> str | None:
    try:
        json.dumps(value, allow_nan=False, sort_keys=True)  # sorted as later: keys of several types cannot be
    except (TypeError, ValueError, RecursionError):
        return "must be a plain value (text, number, true or false, list, mapping)"
    return None


def _display_name(name: str, settings: Mapping[str, Any], options: Options) -> str:
    """A short name that differs when the options differ: `mnist[classes=5+7,limit=1000]`."""
    stem = Path(settings[key]).stem if (key := {"arrays": "features", "imagefolder": "path"}.get(name)) else name
    stem = name.partition(":")[2] if is_python_path(name) else stem
    parts = [
        f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in options.given().items()
    ]
    return f"{stem}[{','.join(parts)}]" if parts else stem


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
    """Splits and options, in the order that `Options` states."""
    options = spec.options
    pool, pool_labels, test, test_labels = arrays.train, arrays.train_labels, arrays.test, arrays.test_labels
    names, classes = arrays.class_names, arrays.classes
    if test is None or test_labels is None:
        fraction = 0.2 if options.test_fraction is None else options.test_fraction
        kept, held_out = stratified_split(pool_labels, fraction, options.split_seed)
        test, test_labels = pool[held_out], pool_labels[held_out]
        pool, pool_labels = pool[kept], pool_labels[kept]
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
    return _dataset(spec, arrays, classes, names, (pool, test, pool_labels, test_labels))


def _relabeled(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = labels >= 0
    return rows[keep], labels[keep]


def _check_limit(limit: int, size: int, classes: int) -> None:
    if limit > size:
        raise DataError([f"limit is {limit}, but the pool has only {size} rows (after classes and imbalance)"])
    if limit < classes:
        raise DataError([f"limit is {limit}, fewer than the {classes} classes; every class needs a row"])


def _dataset(
    spec: DatasetSpec, arrays: Arrays, classes: int, names: tuple[str, ...] | None, parts: tuple[np.ndarray, ...]
) -> Dataset:
    pool, test, pool_labels, test_labels = (_read_only(part) for part in parts)
    return Dataset(
        spec=spec,
        label=spec.label,
        classes=classes,
        kind=arrays.kind,
        arrays={"pool": pool, "test": test},
        pool_labels=pool_labels,
        test_labels=test_labels,
        fingerprint=fingerprint({"pool": pool, "test": test, "pool_labels": pool_labels, "test_labels": test_labels}),
        pixel_max=arrays.pixel_max,
        class_names=names,
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written, in C order and little-endian, so equal content has equal bytes."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view()
    plain.flags.writeable = False
    return plain


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of each array, in sorted order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}|{array.dtype.newbyteorder('<').str}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
