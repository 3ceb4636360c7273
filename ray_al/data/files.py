"""Arrays from .npy, .npz and Parquet files. Nothing is unpickled."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, choices, user_path
from ray_al.data.validate import OF_LOADERS, STANDARD_KEYS

SUFFIXES = (".npy", ".npz", ".parquet")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read_standard(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file that have a standard name; others in it are left alone.

    Raises:
        DataError: the file is missing, is no .npz, or holds none of the standard names.
    """
    found = _read_npz(path, [key for key in _npz_keys(path) if key in STANDARD_KEYS and key not in OF_LOADERS])
    if not found:
        raise DataError(
            [f"{path} holds {', '.join(_npz_keys(path)) or 'nothing'}, but no train_images or train_features"]
        )
    return found


def load_arrays(
    features: str, labels: str | None = None, test_features: str | None = None, test_labels: str | None = None
) -> dict[str, Any]:
    """Own data. A reference is `x.npy`, `x.npz`, `x.npz:key`, `x.parquet` or `x.parquet:column`.

    An .npz without key and without `labels` holds the standard names. With Parquet features, `labels` may be a column
    of that file; it is then also the label column of a Parquet `test_features`.
    """
    if labels is None:
        return read_standard(user_path(features))
    faults: list[str] = []
    raw: dict[str, Any] = {"files": {}}
    for split, inputs, targets in (("train", features, labels), ("test", test_features, test_labels)):
        if inputs is None:
            continue
        column = _label_column(inputs, targets or labels)
        try:
            array = read_reference(inputs, leave_out=column)
            key = f"{split}_{'images' if array.ndim > 2 else 'features'}"
            raw[key], raw["files"][key] = array, inputs
        except DataError as error:
            faults += error.faults
        try:
            raw[f"{split}_labels"] = _read_labels(inputs, column, targets)
            raw["files"][f"{split}_labels"] = targets or inputs
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return raw


def check_references(settings: dict[str, Any]) -> list[str]:
    """Faults of an `arrays` entry that show without reading any file."""
    faults = []
    for key in ("features", "test_features"):
        if key in settings and not is_file(settings[key]):
            faults.append(
                f"{key} is {settings[key]!r}; it must be a file ending in {', '.join(SUFFIXES)} (or file:key)"
            )
    features, labels = settings.get("features", ""), settings.get("labels")
    if labels is None and not features.endswith(".npz"):
        faults.append("labels is missing; only an .npz with the standard names needs none")
    if labels is None and any(key in settings for key in ("test_features", "test_labels")):
        faults.append(
            "test_features and test_labels need labels; an .npz with the standard names holds its own test split"
        )
    for key, inputs in (("labels", features), ("test_labels", settings.get("test_features", ""))):
        value = settings.get(key)
        if value is not None and not is_file(value) and not _split(inputs)[0].endswith(".parquet"):
            faults.append(f"{key} is {value!r}; it must be a file ending in {', '.join(SUFFIXES)} (or file:key)")
    if "test_labels" in settings and "test_features" not in settings:
        faults.append("test_labels is given without test_features")
    if (
        "test_features" in settings
        and "test_labels" not in settings
        and not (labels is not None and _label_column(settings["test_features"], labels))
    ):
        faults.append("test_labels is missing; test_features is given")
    return faults


def file_of(reference: str) -> str:
    return _split(reference)[0]


def is_file(reference: str) -> bool:
    return file_of(reference).endswith(SUFFIXES)


def _split(reference: str) -> tuple[str, str | None]:
    """(file, key or column) of a reference."""
    head, _, key = reference.rpartition(":")
    return (head, key) if head.endswith((".npz", ".parquet")) and key else (reference, None)


def _label_column(inputs: str, labels: str) -> str | None:
    """The column of the features' own Parquet file that holds the labels, when `labels` is one."""
    return labels if _split(inputs)[0].endswith(".parquet") and not is_file(labels) else None


def _read_labels(inputs: str, column: str | None, targets: str | None) -> np.ndarray:
    reference = f"{_split(inputs)[0]}:{column}" if column else targets
    if reference is None:
        raise DataError([f"no labels are given for {inputs}"])
    labels = read_reference(reference)
    # A one-column file of labels is (N, 1); anything wider is not a label vector.
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def read_reference(reference: str, leave_out: str | None = None) -> np.ndarray:
    """The array of a reference; an .npy file is memory-mapped. `leave_out` is a Parquet column that is no feature."""
    name, key = _split(reference)
    path = user_path(name)
    if name.endswith(".parquet"):
        from ray_al.data.parquet import read_parquet

        return read_parquet(path, key, leave_out)
    if name.endswith(".npy"):
        if not os.path.isfile(path):
            raise DataError([f"{path} is missing"])
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except _UNREADABLE as error:
            raise DataError([f"{path} cannot be read as .npy (Python objects are never read): {error}"]) from error
    keys = _npz_keys(path)
    if key is None:
        usual = [k for k in keys if k in ("train_images", "train_features")]
        if len(keys) != 1 and len(usual) != 1:
            raise DataError([f"{path} holds {', '.join(keys) or 'nothing'}; name one of them as {name}:key"])
        key = keys[0] if len(keys) == 1 else usual[0]
    if key not in keys:
        raise DataError([f"{path} has no array {key!r}{choices(key, keys)}"])
    array: np.ndarray = _read_npz(path, [key])[key]
    return array


def _npz_keys(path: Path) -> list[str]:
    if not os.path.isfile(path):
        raise DataError([f"{path} is missing"])
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _UNREADABLE as error:
        raise DataError([f"{path} cannot be read as .npz: {error}"]) from error


def _read_npz(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys}
    except _UNREADABLE as error:
        raise DataError([f"{path} cannot be read (Python objects are never read): {error}"]) from error
