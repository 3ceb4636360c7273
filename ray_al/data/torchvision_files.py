"""The known image datasets in torchvision's own files."""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_al.data.cache import cache_folder
from ray_al.data.faults import DataError, user_path

CLASSES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}


def load_torchvision(name: str, root: str | None, download: bool) -> dict[str, Any]:
    """Both splits as standard arrays, images channels last. Downloads go to `root`, or else to the cache folder.

    Raises:
        DataError: torchvision finds no files in `root`, or they are damaged, or the download fails.
    """
    folder = user_path(root) if root else cache_folder() / "datasets"
    from torchvision import datasets

    raw: dict[str, Any] = {}
    for split in ("train", "test"):
        which = {"split": split} if name == "svhn" else {"train": split == "train"}
        try:
            data = getattr(datasets, CLASSES[name])(str(folder), download=download, **which)
        except Exception as error:  # torchvision raises many types for one cause: files that are not there or not whole
            hint = "" if download else "; `download: true` fetches them"
            raise DataError([f"torchvision cannot read {name} ({split}) in {folder}: {error}{hint}"]) from error
        images = np.asarray(data.data)
        raw[f"{split}_images"] = np.moveaxis(images, 1, 3) if name == "svhn" else images
        raw[f"{split}_labels"] = np.asarray(data.labels if name == "svhn" else data.targets, np.int64)
    raw["class_names"] = [str(digit) for digit in range(10)] if name == "svhn" else list(data.classes)
    return raw
