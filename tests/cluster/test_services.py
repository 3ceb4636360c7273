"""Services as actors: several scorers answer as one does, whatever dies, and however the arrays are held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_al.assemble import DataKeys, LocalReader, materialize
from ray_al.config import parse_sweep
from ray_al.core.linear import LinearHead
from ray_al.data.artifacts import ArtifactStore
from ray_al.services.pool_scorer import PoolScorer
from ray_al.storage import Storage

pytestmark = pytest.mark.slow
N, D, CLASSES = 20_000, 128, 10


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DataKeys]:
    """A pool of three blocks of rows on storage."""
    folder: Path = tmp_path_factory.mktemp("services")
    rng = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    x = (rng.standard_normal((N, D)) + 2 * np.eye(CLASSES, D)[labels]).astype(np.float32)
    np.savez(folder / "x.npz", train_features=x, train_labels=labels, test_features=x[:500], test_labels=labels[:500])
    sweep = parse_sweep(
        {
            "name": "services",
            "storage": str(folder / "runs"),
            "axes": {
                "dataset": [{"name": "arrays", "features": str(folder / "x.npz")}],
                "learner": ["logreg"],
                "strategy": ["kcenter_greedy"],
                "seed": 1,
            },
        }
    )
    keys = materialize(sweep, ArtifactStore(Storage.open(sweep.storage)), sweep.trajectories)[0]
    return str(folder / "runs"), keys


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    from ray_al.cluster.feature_store import NAMESPACE

    ray.init(
        address="local", num_cpus=2, namespace=NAMESPACE, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield ray
    ray.shutdown()


def _head(seed: int) -> LinearHead:
    rng = np.random.default_rng(seed)
    return LinearHead("features", (0.1 * rng.standard_normal((CLASSES, D))).astype(np.float32), np.zeros(CLASSES, "f4"))


def _answers(scorer: Any) -> list[np.ndarray]:
    ids = np.arange(30)
    found = [
        scorer.kcenter("features", 40, ids, ids, 1),
        scorer.linear_top(_head(0), "entropy", 40, ids, 1),
        scorer.linear_badge(_head(1), 40, ids, 1, "norm"),
        (scorer.linear_probs(_head(2), None, "pool"), scorer.linear_probs(_head(2), None, "test")),
        (scorer.kmeans("features", 5, 1),),
    ]
    return [array for answer in found for array in answer]


@pytest.fixture(scope="module")
def want(stored: tuple[str, DataKeys]) -> list[np.ndarray]:
    storage, keys = stored
    return _answers(PoolScorer(LocalReader(ArtifactStore(Storage.open(storage)), keys)))


@pytest.mark.parametrize(("scorers", "room"), [(1, None), (3, None), (2, "0")])
def test_any_number_of_scorers_gives_the_bits_of_one_process(cluster, stored, want, monkeypatch, scorers, room):
    from ray_al.cluster.feature_store import actor
    from ray_al.cluster.placement import Place
    from ray_al.cluster.services import start_services

    storage, keys = stored
    if room is not None:  # nothing fits the object store: rows are mapped from storage
        cluster.shutdown()
        monkeypatch.setenv("RAY_AL_OBJECT_STORE_BYTES", room)
        cluster.init(address="local", num_cpus=2, namespace="ray-al", include_dashboard=False, log_to_driver=False)
    services, handles = start_services(storage, [keys], [Place(0)] * scorers, False)
    for turn in range(min(scorers, 2)):  # whichever answers
        for one, other in zip(want, _answers(services.scorer(keys, turn)), strict=True):
            np.testing.assert_array_equal(one, other)
    counts = [cluster.get(actor(name).counts.remote()) for name in services.scorers]
    assert all(count["passes"] > 0 and count["bytes_read"] > 0 for count in counts)
    assert counts[0]["calls"] == 6
    references = cluster.get(actor(services.store).reference.remote(keys.spaces["features"], "pool"))
    assert len(references) == (0 if room else 1)
    del handles


def test_a_scorer_that_dies_in_the_middle_of_a_selection_changes_nothing(cluster, stored):
    from ray_al.cluster.feature_store import actor
    from ray_al.cluster.placement import Place
    from ray_al.cluster.services import start_services

    storage, keys = stored
    services, handles = start_services(storage, [keys], [Place(0)] * 2, False)
    ids = np.arange(30)
    local = PoolScorer(LocalReader(ArtifactStore(Storage.open(storage)), keys))
    want = local.kcenter("features", 3000, ids, ids, 1)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(services.scorer(keys, 0).kcenter("features", 3000, ids, ids, 1))
    )
    thread.start()
    before = cluster.get(actor(services.scorers[1]).counts.remote()).get("passes", 0)
    while cluster.get(actor(services.scorers[1]).counts.remote()).get("passes", 0) < before + 2:
        time.sleep(0.01)
    cluster.kill(actor(services.scorers[1]), no_restart=False)
    thread.join(120)
    for one, other in zip(want, found[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert cluster.get(actor(services.scorers[1]).counts.remote())["passes"] >= 1  # the new one's own
    del handles


def test_the_index_of_several_machines_gives_the_bits_of_one_process(cluster, stored):
    from ray_al.cluster.feature_store import actor
    from ray_al.cluster.placement import Place
    from ray_al.cluster.services import start_services
    from ray_al.services.neighbor_service import NeighborService

    storage, keys = stored
    alone = NeighborService(LocalReader(ArtifactStore(Storage.open(storage)), keys))
    homes = [Place(0, node=cluster.nodes()[0]["NodeID"]), Place(0)]  # as if they were two machines
    services, handles = start_services(storage, [keys], [*homes, *homes], True)
    client, ids = services.neighbor_client(keys), np.arange(0, N, 50)
    assert len(handles) == 1 + 4 + 2
    for index in ("flat", "hnsw"):
        np.testing.assert_array_equal(alone.of("features", ids, 9, index), client.of("features", ids, 9, index))
    other = actor(services.neighbors.replace("neighbors0", "neighbors1"))
    cluster.kill(other, no_restart=False)
    queries = np.random.default_rng(0).standard_normal((40, D)).astype(np.float32)
    want = alone.nearest("features", queries, ids)
    np.testing.assert_array_equal(want, client.nearest("features", queries, ids))
    assert cluster.get(other.counts.remote())["calls"] >= 1  # the new one's own
    del handles


def test_an_answer_that_does_not_come_in_time_is_an_error_that_says_so(cluster, stored, monkeypatch):
    from ray_al.cluster.placement import Place
    from ray_al.cluster.services import start_services

    storage, keys = stored
    services, handles = start_services(storage, [keys], [Place(0)], False)
    monkeypatch.setenv("RAY_AL_CALL_TIMEOUT", "0.01")
    with pytest.raises(
        TimeoutError, match=r"PoolScorer actor did not answer kmeans within 0\.01 s.*RAY_AL_CALL_TIMEOUT"
    ):
        services.scorer(keys, 0).kmeans("features", 50, 1)
    del handles
