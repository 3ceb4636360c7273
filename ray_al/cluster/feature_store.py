"""The feature store: arrays of artifacts, read by every process of a node without a copy of its own.

What fits lies in Ray's object store; what does not is memory-mapped from the artifact on storage, whose pages the
processes of a node share as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
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
SHARE_OF_OBJECT_STORE = 0.5  # of the smallest node's; the rest is for Ray's own messages
FETCH_SECONDS = 600.0  # after which an array is read from storage instead
BYTES_VARIABLE = "RAY_AL_OBJECT_STORE_BYTES"  # overrides it


@functools.cache
def actor(name: str) -> Any:
    """The handle of a named actor; it stays good when the actor is killed and starts again."""
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError as error:  # the run is being ended: no fault of the trajectory's
        raise RuntimeError(str(error)) from None


def open_from_storage(storage: str, artifact: str, name: str) -> np.ndarray:
    """An array of an artifact, memory-mapped. Its hashes were checked when the run began."""
    return open_array(ArtifactStore(Storage.open(storage), verify=False).open(artifact), name)


def _room() -> float:
    """Bytes for arrays. A store that has started again takes none: readers still hold what its predecessor put."""
    if ray.get_runtime_context().was_current_actor_reconstructed:
        return 0.0
    if BYTES_VARIABLE in os.environ:
        return float(os.environ[BYTES_VARIABLE])
    nodes = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return SHARE_OF_OBJECT_STORE * min(nodes, default=0.0)


class FeatureStore:
    """Loads each array once from storage. A restarted store loads again what is asked for."""

    def __init__(self, storage: str) -> None:
        self._storage = storage
        self._objects: dict[tuple[str, str], list[Any]] = {}
        self._left = _room()  # bytes
        self._lock = threading.Lock()

    def reference(self, artifact: str, name: str) -> list[Any]:
        """A list of one object reference, of array `name` ("pool", "test_labels", ...) of an artifact; empty when
        the array is to be read from storage.

        In a list, since Ray would replace a bare reference by its value.
        """
        with self._lock:
            if (artifact, name) not in self._objects:
                rows = open_from_storage(self._storage, artifact, name)
                fits = rows.nbytes <= self._left
                if fits:
                    self._left -= rows.nbytes
                # A plain array: numpy pickles a numpy.memmap by value, and every reader would hold a copy.
                self._objects[artifact, name] = [ray.put(rows)] if fits else []
            return self._objects[artifact, name]


class StoreReader:
    """Reads one dataset's arrays through the feature store, as they lie in shared memory, without a copy."""

    # Shared by all readers of a process: a worker that runs trial after trial maps each array once. One thread fetches
    # it: where several of a process borrow an object that it does not know yet, Ray (2.60) loses one of them, rarely,
    # and its `ray.get` never returns.
    _arrays: ClassVar[dict[tuple[str, str], np.ndarray]] = {}
    _fetching: ClassVar[dict[tuple[str, str], threading.Lock]] = {}

    def __init__(self, store: str, storage: str, keys: DataKeys) -> None:
        self._store, self._storage, self._keys = store, storage, keys  # the store actor's name, and what it reads

    def read(self, space: str, split: str) -> np.ndarray:
        return self._array(space_key(self._keys, space), split)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return self._array(self._keys.artifact, "pool_labels"), self._array(self._keys.artifact, "test_labels")

    def _array(self, artifact: str, name: str) -> np.ndarray:
        key = artifact, name
        with self._fetching.setdefault(key, threading.Lock()):
            if key not in self._arrays:
                self._arrays[key] = self._fetch(*key)
            return self._arrays[key]

    def _fetch(self, artifact: str, name: str, attempts: int = 10) -> np.ndarray:
        for attempt in range(attempts):
            try:
                found = ray.get(actor(self._store).reference.remote(artifact, name))
                if found:
                    with contextlib.suppress(ray.exceptions.GetTimeoutError):
                        return ray.get(found[0], timeout=FETCH_SECONDS)
                return open_from_storage(self._storage, artifact, name)
            except LOST:
                # The store that owned the array is gone; its successor loads them from storage.
                if attempt == attempts - 1:
                    raise
                time.sleep(0.2 * (attempt + 1))
        raise AssertionError("unreachable")
