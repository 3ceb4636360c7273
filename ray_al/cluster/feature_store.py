"""The feature store: arrays of artifacts in Ray's object store, read by every process of a node without a copy."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any, ClassVar

import numpy as np
import ray

from ray_al.assemble import DataKeys, space_key
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import open_array
from ray_al.storage import Storage

NAMESPACE = "ray-al"
LOST = (ray.exceptions.ObjectLostError, ray.exceptions.OwnerDiedError, ray.exceptions.ReferenceCountingAssertionError)


@functools.cache
def actor(name: str) -> Any:
    """The handle of a named actor; it stays good when the actor is killed and starts again."""
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError as error:  # the run is being ended: no fault of the trajectory's
        raise RuntimeError(str(error)) from None


class FeatureStore:
    """Loads each array once from storage. A restarted store loads again what is asked for."""

    def __init__(self, storage: str) -> None:
        self._artifacts = ArtifactStore(Storage.open(storage))
        self._objects: dict[tuple[str, str], list[Any]] = {}
        self._lock = threading.Lock()

    def reference(self, artifact: str, name: str) -> list[Any]:
        """A list of one object reference, of array `name` ("pool", "test_labels", ...) of an artifact.

        In a list, since Ray would replace a bare reference by its value.
        """
        with self._lock:
            if (artifact, name) not in self._objects:
                rows = open_array(self._artifacts.open(artifact), name)
                # As a plain array: numpy pickles a memory-mapped one by value, and every reader would hold a copy.
                self._objects[artifact, name] = [ray.put(np.asarray(rows))]
            return self._objects[artifact, name]


class StoreReader:
    """Reads one dataset's arrays through the feature store, as they lie in shared memory, without a copy."""

    # Shared by all readers of a process: a worker that runs trial after trial maps each array once.
    _arrays: ClassVar[dict[tuple[str, str], np.ndarray]] = {}

    def __init__(self, store: str, keys: DataKeys) -> None:
        self._store, self._keys = store, keys  # the store actor's name

    def read(self, space: str, split: str) -> np.ndarray:
        return self._array(space_key(self._keys, space), split)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return self._array(self._keys.artifact, "pool_labels"), self._array(self._keys.artifact, "test_labels")

    def _array(self, artifact: str, name: str) -> np.ndarray:
        if (artifact, name) not in self._arrays:
            self._arrays[artifact, name] = self._fetch(artifact, name)
        return self._arrays[artifact, name]

    def _fetch(self, artifact: str, name: str, attempts: int = 10) -> np.ndarray:
        for attempt in range(attempts):
            try:
                (reference,) = ray.get(actor(self._store).reference.remote(artifact, name))
                return ray.get(reference)
            except LOST:
                # The store that owned the array is gone; its successor loads them from storage.
                if attempt == attempts - 1:
                    raise
                time.sleep(0.2 * (attempt + 1))
        raise AssertionError("unreachable")
