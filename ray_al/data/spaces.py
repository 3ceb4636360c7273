"""Spaces: the representations in which a pool is read. What each is, whether it fits a dataset, and its identity.

How a sweep file defines its own is in `space_definitions`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.datasets import Dataset
from ray_al.data.embeddings.match import content_key, match_faults, rows_of
from ray_al.data.embeddings.read import open_embeddings
from ray_al.data.faults import DataError, choices, shown
from ray_al.data.file_space import read_file_space
from ray_al.data.pca import MAX_WIDTH
from ray_al.data.rows import Rows
from ray_al.generative.vae import VERSION as VAE_VERSION
from ray_al.generative.vae import VaeSettings

BUILT_IN = ("images", "pixels", "features", "pca<d>", "vae<d>")
MAX_CODE = 1024  # dimensions of a VAE's code
_NUMBERED = re.compile(r"(pca|vae)([1-9]\d{0,4})")


@dataclass(frozen=True)
class SpaceSpec:
    """A space as a sweep names it. `method` is images, pixels, features, pca, file, embeddings or vae."""

    name: str
    method: str
    of: str | None = None  # the space that pca is taken of; None means the dataset's default space
    dims: int | None = None
    whiten: bool = False
    pool: str | None = None  # files of method "file"
    test: str | None = None
    path: str | None = None  # folder of method "embeddings"
    vae: VaeSettings | None = None  # of method "vae"

    def key(self, dataset: Dataset, spaces: Mapping[str, SpaceSpec] | None = None) -> dict[str, Any]:
        """What the space is, as plain JSON: enters trajectory and artifact ids. Names and file paths do not.

        `spaces` are the sweep's own spaces, of which this one may be made.

        Raises:
            DataError: the space does not fit the dataset, or is made of one that does not exist.
        """
        faults = space_faults(self, dataset, spaces)
        if faults:
            raise DataError(faults)
        key: dict[str, Any] = {"space": self.method, "dataset": dataset.fingerprint}
        if self.method in ("images", "pixels"):
            key |= {"pixel_max": dataset.pixel_max}
        elif self.method == "pca":
            parent = _parent(self, dataset, spaces)
            key |= {"of": parent.key(dataset, spaces), "dims": self.dims, "whiten": self.whiten, "version": 1}
        elif self.method == "file":
            key |= {"content": read_file_space(str(self.pool), str(self.test))[1]}
        elif self.method == "embeddings":
            key |= {"content": content_key(open_embeddings(str(self.path)), dataset)}
        elif self.vae:
            key |= {"pixel_max": dataset.pixel_max, "version": VAE_VERSION, **vars(self.vae)}
        return key


def find_space(name: str, spaces: Mapping[str, SpaceSpec] | None = None, where: str = "space") -> SpaceSpec:
    """The sweep's own space of this name, else the built-in one. Raises DataError for an unknown name."""
    spec = ((spaces or {}).get(name) if isinstance(name, str) else None) or built_in(name)
    if spec is None:
        raise DataError([f"{where}: unknown space {shown(name)}{choices(name, [*BUILT_IN, *(spaces or {})])}"])
    return spec


def default_space(dataset: Dataset) -> SpaceSpec:
    """ "pixels" of images, "features" of features."""
    name = "pixels" if dataset.kind == "images" else "features"
    return SpaceSpec(name, name)


def space_faults(spec: SpaceSpec, dataset: Dataset, spaces: Mapping[str, SpaceSpec] | None = None) -> list[str]:
    """Why the space cannot be made of this dataset; empty when it can. Reads the files of a file space."""
    here = f"space {spec.name!r} of dataset {dataset.label!r}"
    if spec.method in ("images", "pixels", "features", "vae"):
        needs = "features" if spec.method == "features" else "images"
        return [] if dataset.kind == needs else [f"{here}: needs {needs}, but the dataset has {dataset.kind}"]
    try:
        if spec.method == "file":
            return [f"{here}: {fault}" for fault in _size_faults(spec, dataset)]
        if spec.method == "embeddings":
            return [f"{here}: {fault}" for fault in match_faults(open_embeddings(str(spec.path)), dataset)]
        if faults := chain_faults(spec, spaces):
            return [f"{here}: {fault}" for fault in faults]
        parent = _parent(spec, dataset, spaces)
        if parent.method == "images":
            return [f"{here}: PCA is of vectors; take it of 'pixels' instead of 'images'"]
        if faults := space_faults(parent, dataset, spaces):
            return faults
        return [f"{here}: {fault}" for fault in _dims_faults(spec, parent, dataset)]
    except DataError as error:
        return [f"{here}: {fault}" for fault in error.faults]


def space_width(spec: SpaceSpec, dataset: Dataset) -> int:
    """D: values per item, all axes of an image together."""
    if spec.method in ("pca", "vae"):
        return int(spec.dims or 0)
    if spec.method == "embeddings":
        return open_embeddings(str(spec.path)).width
    rows = file_arrays(spec)[0] if spec.method == "file" else dataset.arrays["pool"]
    return int(np.prod(rows.shape[1:]))


def file_arrays(spec: SpaceSpec) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) pool and (M, D) test rows of a file space, checked. Raises DataError."""
    return read_file_space(str(spec.pool), str(spec.test))[0]


def embedding_rows(spec: SpaceSpec, dataset: Dataset) -> dict[str, Path | np.ndarray | Rows]:
    """ "pool" and "test": the file that has exactly these rows, or else the rows, not read yet."""
    return rows_of(open_embeddings(str(spec.path)), dataset)


def built_in(name: Any) -> SpaceSpec | None:
    if name in ("images", "pixels", "features"):
        return SpaceSpec(name, name)
    match = _NUMBERED.fullmatch(name) if isinstance(name, str) else None
    if not match:
        return None
    method, dims = match[1], int(match[2])
    if method == "pca":
        return SpaceSpec(name, method, dims=dims)
    return SpaceSpec(name, method, dims=dims, vae=VaeSettings(dims)) if dims <= MAX_CODE else None


def _parent(spec: SpaceSpec, dataset: Dataset, spaces: Mapping[str, SpaceSpec] | None) -> SpaceSpec:
    return default_space(dataset) if spec.of is None else find_space(spec.of, spaces)


def chain_faults(spec: SpaceSpec, spaces: Mapping[str, SpaceSpec] | None) -> list[str]:
    """An unknown space, or a circle, in what the space is made of."""
    seen = [spec.name]
    while spec.of is not None:
        if spec.of in seen:
            return [f"a space cannot be made of itself: {' of '.join([*seen, spec.of])}"]
        try:
            spec = find_space(spec.of, spaces, "of")
        except DataError as error:
            return list(error.faults)
        seen.append(spec.name)
    return []


def _dims_faults(spec: SpaceSpec, parent: SpaceSpec, dataset: Dataset) -> list[str]:
    width, rows = space_width(parent, dataset), len(dataset.arrays["pool"])
    if width > MAX_WIDTH:
        return [f"PCA of {width} dimensions is too large ({MAX_WIDTH} at most); use smaller images or other features"]
    if (spec.dims or 0) > min(width, rows):
        return [f"dims is {spec.dims}, but there are only {width} dimensions and {rows} pool rows"]
    return []


def _size_faults(spec: SpaceSpec, dataset: Dataset) -> list[str]:
    arrays = dict(zip(("pool", "test"), file_arrays(spec), strict=True))
    return [
        f"{getattr(spec, split)} has {len(rows)} rows, but the dataset has {len(dataset.arrays[split])} {split} items"
        for split, rows in arrays.items()
        if len(rows) != len(dataset.arrays[split])
    ]
