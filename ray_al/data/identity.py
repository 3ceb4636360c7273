"""What data is, as one number: a hash of its content, read or known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ray_al.data.rows import Rows, blocks


def fingerprint(arrays: Mapping[str, np.ndarray | Rows]) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of each array, in sorted order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}|{array.dtype.newbyteorder('<').str}|{array.shape}|".encode())
        for block in blocks(array):
            digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def subset_fingerprint(whole: str, rows: Mapping[str, np.ndarray | None], labels: Mapping[str, np.ndarray]) -> str:
    """Of rows and labels chosen from arrays whose fingerprint is known: nothing large is read."""
    chosen = {name: ids for name, ids in rows.items() if ids is not None}
    return hashlib.sha256(f"{whole}|{fingerprint({**chosen, **labels})}".encode()).hexdigest()


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written, in C order and little-endian, so equal content has equal bytes."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view()
    plain.flags.writeable = False
    return plain
