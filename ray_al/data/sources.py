"""Where data comes from: THE table of dataset loaders, files of RAY_AL_DATA, and loaders by Python path."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.embeddings.read import load_embeddings
from ray_al.data.faults import Check, DataError, choices, flag, text, whole
from ray_al.data.files import check_references, load_arrays, read_standard
from ray_al.data.imagefolder import load_imagefolder
from ray_al.data.subsets import stratified_split

Loader = Callable[..., Mapping[str, Any]]
_PYTHON_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")  # no separators: a dataset name never leaves the folder


@dataclass(frozen=True)
class Source:
    """One row of the table: a function from its own options to the standard arrays, and checks of those options.

    The function returns a mapping with train_images (N, H, W[, C]) uint8 or train_features (N, D), train_labels (N,)
    and, if it has a test split, test_images or test_features and test_labels; optionally class_names, pixel_max,
    train_names and test_names.
    """

    load: Loader
    options: Mapping[str, Check] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    check: Callable[[dict[str, Any]], list[str]] = lambda settings: []  # what one option says of another
    summary: str = ""


def load_digits() -> dict[str, Any]:
    """scikit-learn's digits, 8 x 8, 0..16: 1,797 images, of each class a fixed 20% (rounded) in the test split."""
    from sklearn.datasets import load_digits as bundled

    data = bundled()
    images, labels = data.images.astype(np.uint8), data.target.astype(np.int64)
    pool, test = stratified_split(labels, 0.2, seed=0)
    return {
        "train_images": images[pool],
        "train_labels": labels[pool],
        "test_images": images[test],
        "test_labels": labels[test],
        "class_names": [str(digit) for digit in range(10)],
        "pixel_max": 16,
    }


def load_known(name: str, root: str | None = None, download: bool = False) -> dict[str, Any]:
    """`<name>.npz` of RAY_AL_DATA when it is there, else torchvision's files in `root`, downloaded only if asked."""
    file = npz_file(name)
    if file is not None:
        return read_standard(file)
    if root is None and not download:
        folder = os.environ.get("RAY_AL_DATA")
        place = f"there is no {name}.npz in {folder} (RAY_AL_DATA)" if folder else "RAY_AL_DATA is not set"
        ways = f"put {name}.npz into the folder RAY_AL_DATA names, or give `root:` (torchvision's files)"
        raise DataError([f"{place}; {ways} or `download: true`"])
    from ray_al.data.torchvision_files import load_torchvision

    return load_torchvision(name, root, download)


def _known(name: str) -> Source:
    return Source(
        partial(load_known, name),
        {"root": text, "download": flag},
        summary="the official splits: <name>.npz of RAY_AL_DATA, else torchvision",
    )


DATASETS: dict[str, Source] = {
    "digits": Source(load_digits, summary="1,797 images of scikit-learn, 8 x 8"),
    **{name: _known(name) for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")},
    "arrays": Source(
        load_arrays,
        {"features": text, "labels": text, "test_features": text, "test_labels": text},
        required=("features",),
        check=check_references,
        summary="your own features or images: .npy, .npz, Parquet",
    ),
    "embeddings": Source(load_embeddings, {"path": text}, required=("path",), summary="what ray-al features wrote"),
    "imagefolder": Source(
        load_imagefolder,
        {"path": text, "size": whole(1, 4096)},
        required=("path",),
        summary="your own images, one folder per class",
    ),
}


def data_names() -> list[str]:
    """Names of the .npz files in RAY_AL_DATA."""
    folder = os.environ.get("RAY_AL_DATA")
    if not folder or not Path(folder).is_dir():
        return []
    return sorted(file.stem for file in Path(folder).glob("*.npz") if _FILE_NAME.fullmatch(file.stem))


def npz_file(name: str) -> Path | None:
    """`<name>.npz` in RAY_AL_DATA, if there is one."""
    folder = os.environ.get("RAY_AL_DATA")
    if not folder or not _FILE_NAME.fullmatch(name):
        return None
    file = Path(folder) / f"{name}.npz"
    return file if os.path.isfile(file) else None  # False for names too long, where is_file raises


def is_python_path(name: str) -> bool:
    return _PYTHON_PATH.fullmatch(name) is not None


def find_source(name: str) -> Source | None:
    """The row of the table, a file of RAY_AL_DATA or a Python path; None for a name that is none of these."""
    if name in DATASETS:
        return DATASETS[name]
    if is_python_path(name):
        return Source(partial(_call, name))
    file = npz_file(name)
    return Source(partial(read_standard, file)) if file else None


def _call(python_path: str, **settings: Any) -> Mapping[str, Any]:
    """Call a user's loader with the entry's other keys as arguments."""
    import importlib

    module_name, _, function_name = python_path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise DataError([f"cannot import {module_name}: {type(error).__name__}: {error}"]) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError([f"{module_name} has no function {function_name!r}{choices(function_name, known)}"])
    try:
        raw = function(**settings)
    except DataError:
        raise
    except Exception as error:  # the user's code may raise anything; its traceback stays attached
        raise DataError([f"{python_path} failed: {type(error).__name__}: {error}"]) from error
    if not isinstance(raw, Mapping):
        raise DataError([f"{python_path} returned {type(raw).__name__}; it must return a mapping of arrays"])
    return raw
