"""Embeddings as a space of another dataset: whether their rows are its items, and which rows those are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_al.data.datasets import Dataset
from ray_al.data.embeddings.read import Embeddings
from ray_al.data.identity import subset_fingerprint
from ray_al.data.rows import Rows, take


def match_faults(found: Embeddings, dataset: Dataset) -> list[str]:
    """Why rows of the folder are not the dataset's items, in order; empty when they are.

    What is compared is the source before any option: number of rows, labels and, where both know them, names. Options
    choose among these rows, and do so here, too.
    """
    origin = dataset.origin
    if origin is None:
        return [f"{found.path}: the dataset does not say where its items come from"]
    return [f"{found.path}: {fault}" for split in origin.labels for fault in _split_faults(found, dataset, split)]


def content_key(found: Embeddings, dataset: Dataset) -> str:
    """What the rows hold, as a hash that needs none of them."""
    assert dataset.origin is not None
    rows = {f"{part} of {split}": ids for part, (split, ids) in dataset.origin.rows.items()}
    return subset_fingerprint(found.fingerprint, rows, {})


def rows_of(found: Embeddings, dataset: Dataset) -> dict[str, Path | np.ndarray | Rows]:
    """ "pool" and "test": the file that has exactly these rows, or else the rows, not read yet."""
    assert dataset.origin is not None
    return {
        part: found.path / f"{split}.npy" if ids is None else take(found.rows(split), ids)
        for part, (split, ids) in dataset.origin.rows.items()
    }


def _split_faults(found: Embeddings, dataset: Dataset, split: str) -> Iterator[str]:
    assert dataset.origin is not None
    if split not in found.splits:
        yield f"it has no {split} split, but the dataset has one"
        return
    theirs = dataset.origin.labels[split]
    rows, failed = (found.manifest["splits"][split][key] for key in ("rows", "failed"))
    if rows != len(theirs):
        missing = f" ({failed} images could not be decoded: failures.csv)" if failed else ""
        yield f"it has {rows} {split} rows{missing}, but the dataset has {len(theirs)}"
        return
    names = dataset.origin.names.get(split)
    if names is not None and names != found.names(split):
        yield f"its {split} rows have other names, or another order, than the items of the dataset"
        return
    wrong = np.flatnonzero(found.labels(split) != theirs)
    if len(wrong):
        yield f"{len(wrong)} of its {split} rows have another label than the dataset's items, the first row {wrong[0]}"
