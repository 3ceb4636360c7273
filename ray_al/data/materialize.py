"""Datasets and spaces as artifacts, so that any node can rebuild a service from storage alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.artifacts import Artifact, ArtifactStore, artifact_key
from ray_al.data.datasets import Dataset
from ray_al.data.faults import DataError
from ray_al.data.pca import BLOCK, fit_pca, project
from ray_al.data.rows import blocks
from ray_al.data.spaces import SpaceSpec, default_space, embedding_rows, file_arrays, find_space
from ray_al.data.vae_space import Train, train_quietly, write_vae

Spaces = Mapping[str, SpaceSpec]


def dataset_config(dataset: Dataset) -> dict[str, Any]:
    """The config of the dataset's artifact; who holds the artifact reads classes and kind from it."""
    return {
        "fingerprint": dataset.fingerprint,
        "kind": dataset.kind,
        "classes": dataset.classes,
        "pixel_max": dataset.pixel_max,
    }


def dataset_artifact(store: ArtifactStore, dataset: Dataset) -> Artifact:
    """pool.npy, test.npy, pool_labels.npy and test_labels.npy, as they are in the dataset.

    What lies in a file that never changes becomes a second name of that file where the file system can do so.
    """
    parts = {**dataset.arrays, "pool_labels": dataset.pool_labels, "test_labels": dataset.test_labels}

    def build(folder: Path) -> None:
        for name, array in parts.items():
            if name in dataset.files:
                share(dataset.files[name], folder / f"{name}.npy")
            else:
                _write(folder / f"{name}.npy", array.shape, array.dtype, blocks(array))

    return store.get_or_build("dataset", dataset_config(dataset), build)


def space_artifact(
    store: ArtifactStore,
    dataset: Dataset,
    spec: SpaceSpec,
    spaces: Spaces | None = None,
    train: Train = train_quietly,
) -> Artifact:
    """pool.npy and test.npy of a space; of "images" and "features" it is the dataset's artifact.

    A PCA also has mean.npy (D,), components.npy (D, d) and variances.npy (d,), all float64; a VAE weights.safetensors
    and history.json. `train` says where a VAE is trained, and who is told of it.

    Raises:
        DataError: the space does not fit the dataset, whitening finds too few dimensions that vary, or a VAE cannot be
            trained.
    """
    config = spec.key(dataset, spaces)
    if spec.method in ("images", "features"):
        return dataset_artifact(store, dataset)
    builders: dict[str, Callable[[Path], None]] = {
        "pixels": lambda folder: _build_pixels(folder, dataset),
        "file": lambda folder: _build_file(folder, spec),
        "embeddings": lambda folder: _build_embeddings(folder, spec, dataset),
        "pca": lambda folder: _build_pca(folder, store, dataset, spec, spaces, train),
        "vae": lambda folder: _build_vae(folder, store, dataset, spec, train),
    }
    return store.get_or_build("space", config, builders[spec.method])


def dataset_name(dataset: Dataset) -> str:
    """The name by which the dataset's artifact can be opened once it is built."""
    return f"dataset-{artifact_key('dataset', dataset_config(dataset))}"


def space_name(dataset: Dataset, spec: SpaceSpec, spaces: Spaces | None = None) -> str:
    """The name by which a space's artifact can be opened once it is built."""
    if spec.method in ("images", "features"):
        return dataset_name(dataset)
    return f"space-{artifact_key('space', spec.key(dataset, spaces))}"


def has_space(store: ArtifactStore, dataset: Dataset, spec: SpaceSpec, spaces: Spaces | None = None) -> bool:
    """Whether the artifact is in the storage already; builds nothing."""
    if spec.method in ("images", "features"):
        return store.has("dataset", dataset_config(dataset))
    return store.has("space", spec.key(dataset, spaces))


def open_array(artifact: Artifact, split: str) -> np.ndarray:
    """`<split>.npy` of an artifact ("pool", "test", "pool_labels", ...), memory-mapped and read-only.

    A plain array: every slice of a numpy.memmap is Python code that holds the interpreter's lock.
    """
    return np.asarray(np.load(artifact.path / f"{split}.npy", mmap_mode="r", allow_pickle=False))


def _build_pixels(folder: Path, dataset: Dataset) -> None:
    for split, images in dataset.arrays.items():
        read = _pixel_reader(images, dataset.pixel_max)
        blocks = (read(start, start + BLOCK) for start in range(0, len(images), BLOCK))
        _write(folder / f"{split}.npy", (len(images), images[0].size), np.dtype(np.float32), blocks)


def _pixel_reader(images: np.ndarray, pixel_max: int) -> Callable[[int, int], np.ndarray]:
    """(n, H*W*C) float32 in 0..1 of rows start..stop."""

    def read(start: int, stop: int) -> np.ndarray:
        rows = images[start:stop]
        return rows.reshape(len(rows), -1).astype(np.float32) / np.float32(pixel_max)

    return read


def _build_file(folder: Path, spec: SpaceSpec) -> None:
    for split, rows in zip(("pool", "test"), file_arrays(spec), strict=True):
        _write(folder / f"{split}.npy", rows.shape, rows.dtype, blocks(rows))


def _build_embeddings(folder: Path, spec: SpaceSpec, dataset: Dataset) -> None:
    for split, rows in embedding_rows(spec, dataset).items():
        if isinstance(rows, Path):
            share(rows, folder / f"{split}.npy")
        else:
            _write(folder / f"{split}.npy", rows.shape, rows.dtype, blocks(rows))


def share(source: Path, target: Path) -> None:
    """Give a file that never changes a second name; copy it where that cannot be (another disk, another owner)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _build_vae(folder: Path, store: ArtifactStore, dataset: Dataset, spec: SpaceSpec, train: Train) -> None:
    what = f"space {spec.name!r} of dataset {dataset.label!r}"
    assert spec.vae
    try:
        write_vae(folder, train(dataset_artifact(store, dataset), spec.vae, what), spec.vae)
    except (ValueError, FloatingPointError) as error:
        raise DataError([f"{what}: {error}"]) from error


def _build_pca(
    folder: Path, store: ArtifactStore, dataset: Dataset, spec: SpaceSpec, spaces: Spaces | None, train: Train
) -> None:
    parent = default_space(dataset) if spec.of is None else find_space(spec.of, spaces)
    if parent.method == "pixels":  # from the images themselves: float32 pixels would be four times their size
        readers = {split: _pixel_reader(images, dataset.pixel_max) for split, images in dataset.arrays.items()}
        width = dataset.arrays["pool"][0].size
    else:
        made = space_artifact(store, dataset, parent, spaces, train)
        arrays = {split: open_array(made, split) for split in ("pool", "test")}
        readers = {split: _row_reader(rows) for split, rows in arrays.items()}
        width = arrays["pool"].shape[1]
    dims = int(spec.dims or 0)
    try:
        pca = fit_pca(readers["pool"], len(dataset.arrays["pool"]), width, dims, spec.whiten)
    except ValueError as error:
        raise DataError([f"space {spec.name!r} of dataset {dataset.label!r}: {error}"]) from error
    for split, read in readers.items():
        rows = len(dataset.arrays[split])
        _write(folder / f"{split}.npy", (rows, dims), np.dtype(np.float32), project(pca, read, rows))
    for name in ("mean", "components", "variances"):
        array = getattr(pca, name)
        _write(folder / f"{name}.npy", array.shape, array.dtype, [array])


def _row_reader(rows: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: rows[start:stop]


def _write(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[np.ndarray]) -> None:
    """Write an .npy from blocks of rows. Plain writes: a full disk is an OSError, where a memory map would crash."""
    with open(path, "wb") as out:
        np.lib.format.write_array_header_2_0(
            out, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for block in blocks:
            out.write(np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data)
