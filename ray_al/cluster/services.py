"""Services as actors: plain classes of `ray_al.services`, one instance per dataset, within reach of all trials."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ray_al.assemble import DataKeys
from ray_al.cluster.feature_store import NAMESPACE, FeatureStore, StoreReader, actor
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.sweep_file import ConfigError

# A killed service starts again and its unfinished calls are sent again: calls carry all they need. A call that kills
# its service every time (out of memory, say) is given up, and fails its trial.
REVIVED = {"max_restarts": -1, "max_task_retries": 3}
START_SECONDS = 300
CALLS_AT_ONCE = 16


class ServiceHost:
    """Hosts one service class for every dataset of a sweep."""

    def __init__(self, make: Callable[[StoreReader], Any], store: str, datasets: Mapping[str, DataKeys]) -> None:
        self._services = {name: make(StoreReader(store, keys)) for name, keys in datasets.items()}

    def call(self, dataset: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return getattr(self._services[dataset], method)(*args, **kwargs)


class ScorerHost(ServiceHost):
    """The pool scorer's actor: a class of its own, so that the dashboard tells it from the other."""


class NeighborHost(ServiceHost):
    """The neighbor index's actor."""


class ServiceClient:
    """Has the methods of the hosted class; each call waits for its answer."""

    def __init__(self, host: str, dataset: str, hosted: type) -> None:
        self._host, self._dataset, self._hosted = host, dataset, hosted

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_") or not hasattr(self._hosted, method):
            raise AttributeError(f"{self._hosted.__name__} has no method {method!r}")
        return lambda *args, **kwargs: ray.get(actor(self._host).call.remote(self._dataset, method, args, kwargs))


@dataclass(frozen=True)
class Services:
    """Names of a sweep's actors; travels to every trial."""

    store: str
    scorers: tuple[str, ...]
    neighbors: str | None

    def reader(self, keys: DataKeys) -> StoreReader:
        return StoreReader(self.store, keys)

    def scorer(self, keys: DataKeys, turn: int) -> ServiceClient:
        """Trials are dealt to the scorers in turn; which one answers changes no result."""
        return ServiceClient(self.scorers[turn % len(self.scorers)], keys.artifact, PoolScorer)

    def neighbor_client(self, keys: DataKeys) -> Any:
        return ServiceClient(self.neighbors, keys.artifact, NeighborService) if self.neighbors else None


def start_services(
    storage: str, datasets: Sequence[DataKeys], scorers: int, scorer_cpus: float, neighbors: bool
) -> tuple[Services, list[Any]]:
    """Start the actors and wait for them, so that trials do not start into a queue; they load nothing before a call.

    Returns their names, and handles: the actors live as long as someone holds these.
    """
    prefix = f"ray-al-{uuid.uuid4().hex[:8]}"
    keyed = {keys.artifact: keys for keys in datasets}
    handles: list[Any] = []

    def start(name: str, make: Any, cpus: float, calls: int, *args: Any) -> str:
        options = {"name": f"{prefix}-{name}", "namespace": NAMESPACE, "num_cpus": cpus, "max_concurrency": calls}
        handles.append(ray.remote(make).options(**options, **REVIVED).remote(*args))
        return f"{prefix}-{name}"

    store = start("store", FeatureStore, 0, 4, storage)
    names = [
        start(f"scorer{i}", ScorerHost, scorer_cpus, CALLS_AT_ONCE, PoolScorer, store, keyed) for i in range(scorers)
    ]
    index = start("neighbors", NeighborHost, 0, CALLS_AT_ONCE, NeighborService, store, keyed) if neighbors else None
    try:
        ray.get([handle.__ray_ready__.remote() for handle in handles], timeout=START_SECONDS)
    except ray.exceptions.GetTimeoutError:
        fault = f"the cluster did not start the services within {START_SECONDS} s; is it busy with other jobs?"
        raise ConfigError([fault]) from None
    return Services(store, tuple(names), index), handles
