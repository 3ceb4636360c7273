"""Names of items, by which one knows whether the rows of two arrays are the same things in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def item_name(key: bytes) -> str:
    """A key as text: file names need not be UTF-8, LMDB keys need not be text."""
    return key.decode("utf-8", "backslashreplace")


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 (hex) over item names in order: equal for two lists of the same items."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()
