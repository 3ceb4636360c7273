"""The feature store: arrays of artifacts in Ray's object store, read by every process of a node without a copy."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray

from ray_al.assemble import DataKeys, space_key
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import open_array
from ray_al.storage import Storage

NAMESPACE = "ray-al"
BLOCK_BYTES = 512 * 2**20
LOST = (ray.exceptions.ObjectLostError, ray.exceptions.OwnerDiedError, ray.exceptions.ReferenceCountingAssertionError)


@functools.cache
def actor(name: str) -> Any:
    """The handle of a named actor; it stays good when the actor is killed and starts again."""
    return ray.get_actor(name, NAMESPACE)


class FeatureStore:
    """Loads each array once, in row blocks, from storage. A restarted store loads again what is asked for."""

    def __init__(self, storage: str) -> None:
        self._artifacts = ArtifactStore(Storage.open(storage))
        self._blocks: dict[tuple[str, str], list[Any]] = {}
        self._lock = threading.Lock()

    def blocks(self, artifact: str, name: str) -> list[Any]:
        """References to the row blocks of array `name` ("pool", "test_labels", ...) of an artifact, in order."""
        with self._lock:
            if (artifact, name) not in self._blocks:
                rows = open_array(self._artifacts.open(artifact), name)
                step = max(1, BLOCK_BYTES * len(rows) // max(1, rows.nbytes))
                self._blocks[artifact, name] = [ray.put(rows[i : i + step]) for i in range(0, len(rows), step)]
            return self._blocks[artifact, name]


class StoreReader:
    """Reads one dataset's arrays through the feature store. One block is handed out as it lies in shared memory."""

    # Shared by all readers of a process: a worker that runs trial after trial maps each array once.
    _arrays: Mapping[tuple[str, str], np.ndarray] = {}

    def __init__(self, store: str, keys: DataKeys) -> None:
        self._store, self._keys = store, keys  # the store actor's name

    def read(self, space: str, split: str) -> np.ndarray:
        return self._array(space_key(self._keys, space), split)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return self._array(self._keys.artifact, "pool_labels"), self._array(self._keys.artifact, "test_labels")

    def _array(self, artifact: str, name: str) -> np.ndarray:
        arrays: dict[tuple[str, str], np.ndarray] = self._arrays  # type: ignore[assignment]
        if (artifact, name) not in arrays:
            blocks = self._fetch(artifact, name)
            arrays[artifact, name] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return arrays[artifact, name]

    def _fetch(self, artifact: str, name: str, attempts: int = 10) -> list[np.ndarray]:
        for attempt in range(attempts):
            try:
                return ray.get(ray.get(actor(self._store).blocks.remote(artifact, name)))
            except LOST:
                # The store that owned the blocks is gone; its successor loads them from storage.
                if attempt == attempts - 1:
                    raise
                time.sleep(0.2 * (attempt + 1))
        raise AssertionError("unreachable")
