"""Services as actors: plain classes of `ray_al.services`, one instance per dataset, within reach of all trials."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_al.assemble import DataKeys
from ray_al.cluster.feature_store import NAMESPACE, FeatureStore, StoreReader, actor
from ray_al.cluster.placement import Place
from ray_al.cluster.scorers import PARTS, ScorerHost
from ray_al.cluster.service_metrics import CallMeter
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.graphs import StoredGraphs
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

# A killed service starts again and its unfinished calls are sent again: calls carry all they need. A call that kills
# its service every time (out of memory, say) is given up, and fails its trial.
REVIVED = {"max_restarts": -1, "max_task_retries": 3}
START_SECONDS = 1800  # a machine that an autoscaler brings takes minutes
# Calls under way in one actor; more wait in order of arrival. A trajectory waits for its answer before it calls again,
# so the queue is never longer than the number of trajectories at once, and none of them can crowd out another.
CALLS_AT_ONCE = 64
TIMEOUT_VARIABLE = "RAY_AL_CALL_TIMEOUT"
TIMEOUT_SECONDS = 7200.0


class NeighborHost:
    """The neighbor index's actor on one machine. The first of `names` answers trials; each searches a share of rows."""

    def __init__(
        self, store: str, storage: str, datasets: Mapping[str, DataKeys], names: Sequence[str], own: int
    ) -> None:
        artifacts = ArtifactStore(Storage.open(storage))
        self._services: dict[str, NeighborService] = {}
        for key, keys in datasets.items():
            reader = StoreReader(store, storage, keys)
            others = [ServiceClient(name, key, NeighborService) for name in names[1:]] if own == 0 else []
            shards = [NeighborService(reader), *others] if others else ()
            self._services[key] = NeighborService(reader, StoredGraphs(artifacts, keys.spaces), shards)
        self._meter = CallMeter(f"neighbors{own}")

    def call(self, dataset: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], sent: float) -> Any:
        with self._meter.call(method, sent):
            return getattr(self._services[dataset], method)(*args, **kwargs)

    def counts(self) -> dict[str, float]:
        """Sums since the actor started: calls, queue_seconds, call_seconds."""
        return dict(self._meter.sums)


class ServiceClient:
    """Has the methods of the hosted class; each call waits for its answer.

    Raises:
        TimeoutError: none came within the time that RAY_AL_CALL_TIMEOUT (seconds) allows.
    """

    def __init__(self, host: str, dataset: str, hosted: type) -> None:
        self._host, self._dataset, self._hosted = host, dataset, hosted

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_") or not hasattr(self._hosted, method):
            raise AttributeError(f"{self._hosted.__name__} has no method {method!r}")
        return lambda *args, **kwargs: self._ask(method, args, kwargs)

    def _ask(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        limit = float(os.environ.get(TIMEOUT_VARIABLE, TIMEOUT_SECONDS))
        answer = actor(self._host).call.remote(self._dataset, method, args, kwargs, time.time())
        try:
            return ray.get(answer, timeout=limit)
        except ray.exceptions.GetTimeoutError:
            with contextlib.suppress(Exception):  # if it has not begun, it need not
                ray.cancel(answer)
            raise TimeoutError(
                f"the {self._hosted.__name__} actor did not answer {method} within {limit:g} s; it may be overloaded "
                f"(more scorers, fewer trajectories at once: resources.trial.together) or its node out of reach; "
                f"{TIMEOUT_VARIABLE} sets the limit"
            ) from None


@dataclass(frozen=True)
class Services:
    """Names of a sweep's actors; travels to every trial."""

    storage: str
    store: str
    scorers: tuple[str, ...]
    neighbors: str | None  # the index that answers trials, whatever others it asks

    def reader(self, keys: DataKeys) -> StoreReader:
        return StoreReader(self.store, self.storage, keys)

    def scorer(self, keys: DataKeys, turn: int) -> ServiceClient:
        """Trials are dealt to the scorers in turn; which one answers changes no result."""
        return ServiceClient(self.scorers[turn % len(self.scorers)], keys.artifact, PoolScorer)

    def neighbor_client(self, keys: DataKeys) -> Any:
        return ServiceClient(self.neighbors, keys.artifact, NeighborService) if self.neighbors else None


def start_services(
    storage: str, datasets: Sequence[DataKeys], places: Sequence[Place], neighbors: bool
) -> tuple[Services, list[Any]]:
    """Start the actors and wait for them, so that trials do not start into a queue; they load nothing before a call.

    Starts one scorer in each place, and with `neighbors` an index on each machine of these. Returns the actors' names,
    and handles: they live as long as someone holds these.
    """
    prefix = f"ray-al-{uuid.uuid4().hex[:8]}"
    keyed = {keys.artifact: keys for keys in datasets}
    handles: list[Any] = []

    def start(name: str, make: Any, options: Mapping[str, Any], *args: Any) -> str:
        options = {"name": f"{prefix}-{name}", "namespace": NAMESPACE, **options, **REVIVED}
        handles.append(ray.remote(**options)(make).remote(*args))
        return f"{prefix}-{name}"

    store = start("store", FeatureStore, {"num_cpus": 0, "max_concurrency": 4}, storage)
    names = [f"{prefix}-scorer{i}" for i in range(len(places))]
    groups = {"max_concurrency": CALLS_AT_ONCE, "concurrency_groups": {PARTS: CALLS_AT_ONCE}}
    seats = [_seat(place) for place in places if place.cpus]
    for i, place in enumerate(places):
        options = {**groups, **_on(place.node), "num_gpus": place.gpus}
        device, warm = "cuda" if place.gpus else None, place.cpus > 0
        start(f"scorer{i}", ScorerHost, options, store, storage, keyed, names, i, device, warm)
    homes = list(dict.fromkeys(place.node for place in places)) if neighbors else []
    indexes = [f"{prefix}-neighbors{i}" for i in range(len(homes))]
    for i, node in enumerate(homes):
        options = {"max_concurrency": CALLS_AT_ONCE, **_on(node)}
        start(f"neighbors{i}", NeighborHost, options, store, storage, keyed, indexes, i)
    deadline = time.monotonic() + START_SECONDS
    try:
        ray.get([handle.__ray_ready__.remote() for handle in handles], timeout=START_SECONDS)
        if not all(seat.wait(max(0.0, deadline - time.monotonic())) for seat in seats):
            raise ray.exceptions.GetTimeoutError
    except ray.exceptions.GetTimeoutError:
        fault = f"the cluster did not start the services within {START_SECONDS} s; is it busy with other jobs?"
        raise ConfigError([fault]) from None
    return Services(storage, store, tuple(names), next(iter(indexes), None)), handles


def _on(node: str | None) -> dict[str, Any]:
    """Soft, and without cores of its own: an actor whose machine is gone starts again on another, however full."""
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT",
    }


def _seat(place: Place) -> Any:
    """Keeps the cores that a scorer uses free of trials, on its machine; when that is gone, nowhere else."""
    here = [{"ray.io/node-id": place.node}] if place.node else None
    return placement_group([{"CPU": place.cpus}], strategy="STRICT_PACK", bundle_label_selector=here)
