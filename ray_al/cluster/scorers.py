"""Scorers as actors: each holds a shard of the rows of every space, and answers for all of them."""

from __future__ import annotations

import gc
import importlib
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray

from ray_al.assemble import DataKeys
from ray_al.cluster.feature_store import StoreReader, actor
from ray_al.cluster.service_metrics import PassMeter
from ray_al.core.linear import Linear
from ray_al.services.device_scorer import DeviceScorer
from ray_al.services.known import Memory
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.shard import BadgeTask, CoverageLost, KCenterTask, Shard

PARTS = "parts"  # the threads that work for other scorers: never taken by calls, which wait for them
IDLE_SECONDS = 3600.0  # between two calls, after which a selection is forgotten: whoever began it is gone


def _warm() -> None:
    """Imports make some 200,000 objects, which collections of garbage would go over again and again, now and later."""
    gc.disable()
    try:
        importlib.import_module("ray_al.kernels.warm")
    finally:
        gc.freeze()
        gc.enable()


class ScorerHost:
    """The pool scorer's actor. Trials use `call`; other scorers use the rest."""

    def __init__(
        self,
        store: str,
        storage: str,
        datasets: Mapping[str, DataKeys],
        names: Sequence[str],
        own: int,
        device: str | None = None,  # which then holds all rows: no shards
        warm: bool = False,
    ) -> None:
        if warm:  # the first call would wait seconds for these imports; trials are starting meanwhile
            threading.Thread(target=_warm, daemon=True).start()
        meter = PassMeter(f"scorer{own}")
        self._meter, self._lock = meter, threading.Lock()
        self._coverages: dict[str, tuple[Any, float]] = {}  # and when each was last used
        self._shards: dict[str, Shard] = {}
        memory = Memory()
        self._scorers: dict[str, PoolScorer] = {}
        for dataset, keys in datasets.items():
            reader = StoreReader(store, storage, keys)
            if device:
                self._scorers[dataset] = DeviceScorer(reader, device, meter.passed)
                continue
            shard = Shard(reader, (own, len(names)), meter.passed, memory)
            peers = [shard if i == own else RemoteShard(name, dataset) for i, name in enumerate(names)]
            self._shards[dataset], self._scorers[dataset] = shard, PoolScorer(reader, shard, peers)

    def call(self, dataset: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], sent: float) -> Any:
        with self._meter.call(method, sent):
            return getattr(self._scorers[dataset], method)(*args, **kwargs)

    def counts(self) -> dict[str, float]:
        """Sums since the actor started: calls, passes, requests, bytes_read, seconds."""
        return dict(self._meter.sums)

    @ray.method(concurrency_group=PARTS)
    def part(self, dataset: str, method: str, *args: Any) -> Any:
        return getattr(self._shards[dataset], method)(*args)

    @ray.method(concurrency_group=PARTS)
    def begin(self, dataset: str, task: KCenterTask | BadgeTask) -> str:
        """Open a coverage of this shard's rows; the answer names it."""
        coverage, name = self._shards[dataset].coverage(task), uuid.uuid4().hex
        now = time.monotonic()
        with self._lock:
            for idle in [old for old, (_, used) in self._coverages.items() if now - used > IDLE_SECONDS]:
                del self._coverages[idle]
            self._coverages[name] = coverage, now
        return name

    @ray.method(concurrency_group=PARTS)
    def go_on(self, name: str, method: str, *args: Any) -> Any:
        with self._lock:
            if name not in self._coverages:
                raise CoverageLost(
                    f"the scorer that held selection {name} started again, or nobody asked it for an hour"
                )
            coverage, _ = self._coverages.pop(name)
            if method != "close":
                self._coverages[name] = coverage, math.inf  # not idle, however long the call takes
        try:
            return getattr(coverage, method)(*args)
        finally:
            with self._lock:
                if name in self._coverages:
                    self._coverages[name] = coverage, time.monotonic()


class RemoteShard:
    """Another scorer's shard."""

    def __init__(self, host: str, dataset: str) -> None:
        self._host, self._dataset = host, dataset

    def leading(self, head: Linear, score: str, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ray.get(actor(self._host).part.remote(self._dataset, "leading", head, score, k, exclude))

    def confident(
        self, head: Linear, score: str, threshold: float, exclude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return ray.get(actor(self._host).part.remote(self._dataset, "confident", head, score, threshold, exclude))

    def probs(self, head: Linear, split: str) -> np.ndarray:
        return ray.get(actor(self._host).part.remote(self._dataset, "probs", head, split))

    def coverage(self, task: KCenterTask | BadgeTask) -> Any:
        return RemoteCoverage(self._host, ray.get(actor(self._host).begin.remote(self._dataset, task)))


class RemoteCoverage:
    """A coverage that another scorer holds: its methods are those of `ray_al.kernels.coverage.Coverage`."""

    def __init__(self, host: str, name: str) -> None:
        self._host, self._name = host, name

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: ray.get(actor(self._host).go_on.remote(self._name, method, *args))
