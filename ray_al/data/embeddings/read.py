"""A finished folder of embeddings: memory-mapped arrays, and what its manifest says of them. Reads no rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.embeddings.shards import MANIFEST, SETTINGS
from ray_al.data.faults import DataError, user_path

FORMAT = 1


@dataclass(frozen=True)
class Embeddings:
    """Row i of a split is item i of the source, without those that could not be decoded."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Of arrays and labels; equals `datasets.fingerprint` of the whole dataset, without reading it."""
        return str(self.manifest["fingerprint"])

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest["splits"])

    @property
    def width(self) -> int:
        return int(self.manifest["splits"]["train"]["width"])

    def rows(self, split: str) -> np.ndarray:
        """(n, D), memory-mapped."""
        return _load(self.path / f"{split}.npy")

    def labels(self, split: str) -> np.ndarray:
        return np.array(_load(self.path / f"{split}_labels.npy"))

    def names(self, split: str) -> str:
        """Digest of the item names, in order."""
        return str(self.manifest["splits"][split]["names"])


def open_embeddings(path: str) -> Embeddings:
    """Open a folder that `ray-al features` finished.

    Raises:
        DataError: there is none, it is not finished, or a file is missing or of another size.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise DataError([f"{folder} is not a folder; ray-al features writes one"])
    if not (folder / MANIFEST).is_file():
        if (folder / SETTINGS).is_file():
            raise DataError([f"{folder} is not finished; the same ray-al features command goes on"])
        raise DataError([f"{folder} holds no embeddings ({MANIFEST} is missing); ray-al features writes them"])
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files, shape = manifest["files"], (manifest["format"], manifest["splits"]["train"]["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError([f"{folder / MANIFEST} is not the manifest of embeddings ({error!r})"]) from error
    if shape[0] != FORMAT:
        raise DataError([f"{folder} is of format {shape[0]}; this version of ray-al reads {FORMAT}"])
    faults = [
        f"{folder / name} is missing or was changed: it must have {size} bytes"
        for name, size in files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != size
    ]
    if faults:
        raise DataError(faults)
    return Embeddings(folder, manifest)


def load_embeddings(path: str) -> dict[str, Any]:
    """The folder as a dataset: features that stay on the disk, labels, class names, and who they are."""
    found = open_embeddings(path)
    raw: dict[str, Any] = {"class_names": found.manifest["class_names"]}
    for split in found.splits:
        raw[f"{split}_features"] = found.rows(split)
        raw[f"{split}_labels"] = found.labels(split)
        raw[f"{split}_names"] = found.names(split)
    files = {split: found.path / f"{split}.npy" for split in found.splits}
    raw["content"] = {"fingerprint": found.fingerprint, "files": files}
    return raw


def _load(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError([f"{path} cannot be read: {error}"]) from error
    return array
