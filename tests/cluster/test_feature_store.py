"""Reading through the feature store, without Ray."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from ray_al.cluster import feature_store
from ray_al.cluster.feature_store import StoreReader


def test_an_array_is_fetched_once_however_many_threads_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, fetched = 8, []
    begin = threading.Barrier(threads)

    def fetch(reader: StoreReader, artifact: str, name: str) -> np.ndarray:
        fetched.append(name)
        time.sleep(0.05)  # in which the others ask
        return np.arange(3)

    monkeypatch.setattr(StoreReader, "_arrays", {})
    monkeypatch.setattr(StoreReader, "_fetching", {})
    monkeypatch.setattr(StoreReader, "_fetch", fetch)
    keys: Any = SimpleNamespace(artifact="a")

    def labels(_: int) -> tuple[np.ndarray, np.ndarray]:
        begin.wait()
        return StoreReader("store", "storage", keys).labels()

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(labels, range(threads)))
    assert sorted(fetched) == ["pool_labels", "test_labels"]
    assert all(one is found[0][0] and other is found[0][1] for one, other in found)


def test_a_fetch_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [OSError("gone"), np.arange(3)]

    def fetch(reader: StoreReader, artifact: str, name: str) -> np.ndarray:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(StoreReader, "_arrays", {})
    monkeypatch.setattr(StoreReader, "_fetching", {})
    monkeypatch.setattr(StoreReader, "_fetch", fetch)
    monkeypatch.setattr("ray_al.cluster.feature_store.space_key", lambda keys, space: space)
    keys: Any = SimpleNamespace()
    reader = StoreReader("store", "storage", keys)
    with pytest.raises(OSError, match="gone"):
        reader.read("features", "pool")
    assert len(reader.read("features", "pool")) == 3


def test_an_object_that_does_not_come_is_read_from_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SimpleNamespace(reference=SimpleNamespace(remote=lambda *names: "call"))

    def get(what: str, timeout: float | None = None) -> Any:
        if what == "call":
            return ["object"]
        assert timeout == feature_store.FETCH_SECONDS
        raise ray.exceptions.GetTimeoutError

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(feature_store, "actor", lambda name: store)
    monkeypatch.setattr(feature_store, "open_from_storage", lambda *where: where)
    keys: Any = SimpleNamespace()
    reader = StoreReader("store", "storage", keys)
    assert reader._fetch("artifact", "pool") == ("storage", "artifact", "pool")
