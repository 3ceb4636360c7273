"""Turn what a loader returned into checked arrays, with every fault named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import choices
from ray_al.data.names import names_digest

STANDARD_KEYS = (
    "train_images",
    "train_features",
    "train_labels",
    "test_images",
    "test_features",
    "test_labels",
    "class_names",
    "pixel_max",
    "train_names",  # of the items: texts, or their digest (`names.names_digest`)
    "test_names",
    "files",  # array name -> the file it was read from, for messages
    "content",  # of arrays that were checked when they were written: their fingerprint, and files that never change
)
OF_LOADERS = ("files", "content")  # never read from a file of the user's
_BLOCK = 1 << 24  # values looked at in one go, so that a memory-mapped file is never whole in memory


@dataclass(frozen=True)
class Arrays:
    """Checked arrays of a loader. `test` and `test_labels` are both None when there is no test split."""

    kind: str  # "images" or "features"
    train: np.ndarray  # (N, H, W[, C]) uint8, or (N, D) float16/float32
    train_labels: np.ndarray  # (N,) int64 in 0..C-1, every class present
    test: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    pixel_max: int
    names: Mapping[str, str] = field(default_factory=dict)  # split -> digest of its item names, where they are known
    fingerprint: str | None = None  # of all arrays, where it is known without reading them
    files: Mapping[str, Path] = field(default_factory=dict)  # split -> a file that holds its rows and never changes

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """By split, "train" and, if there is one, "test"."""
        return {"train": self.train_labels} | ({} if self.test_labels is None else {"test": self.test_labels})

    @property
    def classes(self) -> int:
        return int(self.train_labels.max()) + 1


def check_arrays(raw: Mapping[str, Any]) -> tuple[Arrays | None, list[str]]:
    """The arrays, and the faults found; arrays are None when there is any fault."""
    faults = [f"unknown array {key!r}{choices(key, STANDARD_KEYS)}" for key in raw if key not in STANDARD_KEYS]
    kind, train = _inputs(raw, "train", faults)
    test_kind, test = _inputs(raw, "test", faults)
    train_labels = _labels(raw, "train", faults)
    test_labels = _labels(raw, "test", faults)
    if kind and test_kind and kind != test_kind:
        faults.append(f"the training split has {kind} and the test split {test_kind}; both must be of one kind")
    elif train is not None and test is not None and train.shape[1:] != test.shape[1:]:
        faults.append(f"training rows have shape {train.shape[1:]} and test rows {test.shape[1:]}; they must agree")
    classes = _check_classes(train_labels, test_labels, faults)
    names = _class_names(raw, classes, faults)
    pixel_max = _pixel_max(raw, train if kind == "images" else None, faults)
    if faults or train is None or train_labels is None or kind is None:
        return None, faults
    if test is not None and test.dtype != train.dtype:
        test = test.astype(np.float32)
        train = train.astype(np.float32)
    content = raw.get("content") or {}
    return Arrays(
        kind, train, train_labels, test, test_labels, names, pixel_max,
        names={split: _digest(raw[f"{split}_names"]) for split in ("train", "test") if f"{split}_names" in raw},
        fingerprint=content.get("fingerprint"),
        files=content.get("files", {}),
    ), faults  # fmt: skip


def _digest(names: Any) -> str:
    return names if isinstance(names, str) else names_digest(str(name) for name in names)


def _inputs(raw: Mapping[str, Any], split: str, faults: list[str]) -> tuple[str | None, np.ndarray | None]:
    given = [kind for kind in ("images", "features") if raw.get(f"{split}_{kind}") is not None]
    if len(given) == 2:
        faults.append(f"both {split}_images and {split}_features are given; a dataset has one of them")
    if len(given) != 1:
        if not given and split == "train":
            faults.append(
                f"neither train_images nor train_features is given; found: {', '.join(map(str, raw)) or 'nothing'}"
            )
        return None, None
    key = f"{split}_{given[0]}"
    array = _array(raw[key], key, faults)
    if array is None:
        return given[0], None
    if given[0] == "images":
        checked, found = check_images(array, _name(raw, key))
    else:
        checked, found = check_features(array, _name(raw, key), known_finite="content" in raw)
    faults.extend(found)
    return given[0], checked


def _array(value: Any, key: str, faults: list[str]) -> np.ndarray | None:
    try:
        return np.asanyarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal length, a tensor on a GPU
        faults.append(f"{key} is no array: {error}")
        return None


def _name(raw: Mapping[str, Any], key: str) -> str:
    files = raw.get("files")
    file = files.get(key) if isinstance(files, Mapping) else None
    return f"{key} ({file})" if file else key


def check_images(array: np.ndarray, name: str) -> tuple[np.ndarray | None, list[str]]:
    """Images (N, H, W) or (N, H, W, C), uint8, 1 to 4 channels."""
    if array.dtype != np.uint8:
        return None, [f"{name} has dtype {array.dtype}; images are uint8"]
    if array.ndim not in (3, 4) or 0 in array.shape:
        return None, [f"{name} has shape {array.shape}; images are N x H x W or N x H x W x C, none of them 0"]
    if array.ndim == 4 and array.shape[3] > 4:
        return None, [f"{name} has shape {array.shape}; the last axis is the channels, of which 1 to 4 are possible"]
    return array, []


def check_features(array: np.ndarray, name: str, known_finite: bool = False) -> tuple[np.ndarray | None, list[str]]:
    """Features (N, D), finite. float16 and float32 stay as they are, other numbers become float32."""
    if array.dtype.kind not in "fiu":
        return None, [f"{name} has dtype {array.dtype}; features are numbers (float16 or float32)"]
    if array.ndim != 2 or 0 in array.shape:
        return None, [f"{name} has shape {array.shape}; features are N x D, neither of them 0"]
    if array.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if known_finite:
        return array, []
    rows = max(1, _BLOCK // array.shape[1])
    bad, first = 0, None
    for start in range(0, len(array), rows):
        wrong = np.argwhere(~np.isfinite(array[start : start + rows]))  # (k, 2)
        bad += len(wrong)
        if len(wrong) and first is None:
            first = (start + int(wrong[0, 0]), int(wrong[0, 1]))
    if first is not None:
        where = f"the first in row {first[0]}, column {first[1]}"
        return None, [f"{name} has {bad} values that are NaN or infinite (as float32 at most), {where}"]
    return array, []


def _length(rows: Any) -> int | None:
    try:
        return len(rows)
    except TypeError:  # no rows at all, which is a fault of its own
        return None


def _labels(raw: Mapping[str, Any], split: str, faults: list[str]) -> np.ndarray | None:
    key = f"{split}_labels"
    inputs = [raw[f"{split}_{kind}"] for kind in ("images", "features") if raw.get(f"{split}_{kind}") is not None]
    if raw.get(key) is None:
        if inputs or split == "train":
            faults.append(f"{key} is missing")
        return None
    if not inputs and split == "test":
        faults.append("test_labels is given without test_images or test_features")
        return None
    labels, key = _array(raw[key], key, faults), _name(raw, key)
    if labels is None:
        return None
    if labels.dtype.kind not in "iu":
        faults.append(f"{key} has dtype {labels.dtype}; labels are integers 0..C-1")
    elif labels.ndim != 1:
        faults.append(f"{key} has shape {labels.shape}; labels are a vector of length N")
    elif inputs and (rows := _length(inputs[0])) is not None and len(labels) != rows:
        faults.append(f"{key} has {len(labels)} entries, but there are {rows} {split} rows")
    elif len(labels) and (labels.min() < 0 or labels.max() >= 2**31):
        faults.append(f"{key} has values from {labels.min()} to {labels.max()}; labels are 0..C-1")
    elif len(labels):
        return np.ascontiguousarray(labels, np.int64)
    else:
        faults.append(f"{key} is empty")
    return None


def _check_classes(train: np.ndarray | None, test: np.ndarray | None, faults: list[str]) -> int | None:
    """The number of classes, max + 1; each must be in the training split."""
    if train is None:
        return None
    present = np.unique(train)
    classes = int(present[-1]) + 1
    if len(present) < classes:
        absent = [str(c) for c in range(min(classes, 1000)) if c not in set(present.tolist())]
        shown = ", ".join(absent[:5]) + (", ..." if classes - len(present) > 5 else "")
        reach = f"train_labels reach {classes - 1}, so there are {classes} classes"
        faults.append(f"{reach}, but {classes - len(present)} of them have no training rows: {shown}")
        return None
    if classes < 2:
        faults.append("train_labels hold class 0 only; at least two classes are needed")
    if test is not None and test.max() >= classes:
        faults.append(f"test_labels reach {test.max()}, but train_labels only {classes - 1}; labels are 0..C-1")
    return classes


def _class_names(raw: Mapping[str, Any], classes: int | None, faults: list[str]) -> tuple[str, ...] | None:
    if raw.get("class_names") is None:
        return None
    given = _array(raw["class_names"], "class_names", faults)
    if given is None:
        return None
    names = tuple(str(name) for name in given.ravel())
    if classes is not None and len(names) != classes:
        faults.append(f"class_names has {len(names)} names for {classes} classes")
    return names


def _pixel_max(raw: Mapping[str, Any], images: np.ndarray | None, faults: list[str]) -> int:
    """The value of a white pixel: 255 unless the data says otherwise."""
    value = raw.get("pixel_max")
    if value is None:
        return 255
    array = _array(value, "pixel_max", faults)
    if array is None:
        return 255
    if array.size != 1 or array.dtype.kind not in "iu" or not 1 <= array.item() <= 255:
        faults.append(f"pixel_max is {value!r}; it must be a whole number from 1 to 255")
        return 255
    if images is not None and images.max() > array.item():
        faults.append(f"pixel_max is {array.item()}, but train_images reach {images.max()}")
    return int(array.item())
