"""A space from two files of the user's: pool rows and test rows."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, user_path
from ray_al.data.files import file_of, read_reference
from ray_al.data.identity import fingerprint
from ray_al.data.validate import check_features


def read_file_space(*references: str) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """((N, D) pool, (M, D) test) rows of two references, checked, and their fingerprint. Raises DataError."""
    stamps = []
    for reference in references:
        path = user_path(file_of(reference))
        if not os.path.isfile(path):
            raise DataError([f"{path} is missing"])
        stamps.append((os.path.abspath(path), path.stat().st_size, path.stat().st_mtime_ns))
    return _read_files(references, tuple(stamps))


@lru_cache(maxsize=4)  # every trajectory of a plan asks for the key; the files are read and hashed once
def _read_files(references: tuple[str, ...], stamps: tuple[Any, ...]) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    found, faults = [], []
    for reference in references:
        rows = read_reference(reference)
        checked, wrong = check_features(
            rows.reshape(len(rows), math.prod(rows.shape[1:])) if rows.ndim > 2 else rows, reference
        )
        faults += wrong
        found.append(checked)
    pool, test = found
    if pool is not None and test is not None and pool.shape[1] != test.shape[1]:
        faults.append(f"{references[0]} has {pool.shape[1]} dimensions and {references[1]} {test.shape[1]}")
    if faults or pool is None or test is None:
        raise DataError(faults)
    return (pool, test), fingerprint({"pool": pool, "test": test})
