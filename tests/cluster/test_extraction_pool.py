"""How many actors an extraction gets on which machines; Ray only says which there are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from ray_al.cluster import extraction_pool
from ray_al.cluster.extract import Pool
from ray_al.data.faults import DataError

HEAD = {"CPU": 4.0, "node:__internal_head__": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 2.0}


class Cluster:
    """Machines there, and what the autoscaler's file says may come."""

    def __init__(self, home: Path) -> None:
        self.nodes: list[dict[str, float]] = [HEAD]
        self.home = home

    def autoscaled(self, machines: int) -> None:
        kinds = {"head": {"resources": {"CPU": 4}}, "gpu": {"resources": GPU_NODE, "max_workers": machines}}
        config = {"head_node_type": "head", "max_workers": 100, "available_node_types": kinds}
        (self.home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))

    def pool(
        self, gpus: float | None, device: str, actors: int | None = None, local: bool = False, batches: int = 10**6
    ) -> tuple[Pool, str]:
        said = io.StringIO()
        pool = extraction_pool.choose_pool(actors, gpus, device, local, batches, Console(file=said, width=200))
        return pool, said.getvalue()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(
        "ray.nodes",
        lambda: [{"NodeID": str(i), "Alive": True, "Resources": node} for i, node in enumerate(made.nodes)],
    )
    return made


def test_what_no_machine_has_and_none_brings_is_refused(cluster: Cluster) -> None:
    assert not extraction_pool.has_gpus()
    with pytest.raises(DataError, match="--gpus: an actor asks for 1 GPUs, which no machine of the cluster has"):
        cluster.pool(1, "cuda")
    with pytest.raises(DataError, match="--out was begun on GPUs: an actor asks for 1 GPUs"):
        cluster.pool(None, "cuda")
    cluster.autoscaled(3)
    with pytest.raises(DataError, match="an actor asks for 3 GPUs"):
        cluster.pool(3, "cuda")
    with pytest.raises(DataError, match="which this machine does not have"):
        cluster.pool(1, "cuda", local=True)


def test_machines_that_are_coming_count(cluster: Cluster) -> None:
    cluster.autoscaled(3)
    assert extraction_pool.has_gpus()
    pool, said = cluster.pool(None, "cuda")
    assert (pool.actors, pool.gpus) == (6, 1)
    assert "waiting for the autoscaler to bring one" in said
    cluster.nodes = [HEAD, GPU_NODE]  # one of the three has come
    pool, said = cluster.pool(0.1, "cuda")
    assert (pool.actors, said) == (60, "")
    assert cluster.pool(0, "cpu")[0].actors == 4 + 3 * 8
    assert cluster.pool(0, "cpu", batches=5)[0].actors == 5
    assert cluster.pool(0, "cpu", actors=500)[0].actors == 500
    with pytest.raises(DataError, match="--actors is 13; there is room for 12 with a core each"):
        cluster.pool(0, "cpu", actors=13, local=True)


def test_on_kubernetes_what_is_asked_for_is_believed_to_come(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert not extraction_pool.has_gpus()
    assert cluster.pool(2, "cuda")[0] == Pool(1, cpus=0, gpus=2, device="cuda")
    cluster.nodes += [GPU_NODE] * 2
    assert cluster.pool(1, "cuda")[0].actors == 4
