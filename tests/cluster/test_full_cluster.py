"""A scorer whose machine is lost starts again on another one that has not a core left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_al.assemble import materialize
from ray_al.config import parse_sweep
from ray_al.data.artifacts import ArtifactStore
from ray_al.storage import Storage

pytestmark = pytest.mark.slow


def test_a_scorer_finds_a_place_on_a_full_machine(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group

    from ray_al.cluster.feature_store import NAMESPACE
    from ray_al.cluster.placement import Place
    from ray_al.cluster.services import start_services

    raw = {"name": "full", "storage": str(tmp_path / "runs")}
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["kcenter_greedy"], "seed": 1}
    sweep = parse_sweep({**raw, "axes": axes})
    keys = materialize(sweep, ArtifactStore(Storage.open(sweep.storage)), sweep.trajectories)[0]
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        other = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
        services, handles = start_services(str(tmp_path / "runs"), [keys], [Place(1, node=other.node_id)], False)
        assert ray.available_resources().get("CPU") == 1  # the scorer's core is kept free of trials
        trial = placement_group([{"CPU": 1}])
        assert trial.wait(30)
        scorer, ids = services.scorer(keys, 0), np.arange(9)
        want = scorer.kcenter("pixels", 20, ids, ids, 1)
        cluster.remove_node(other, allow_graceful=False)
        for one, again in zip(want, scorer.kcenter("pixels", 20, ids, ids, 1), strict=True):
            np.testing.assert_array_equal(one, again)
        del handles
    finally:
        ray.shutdown()
        cluster.shutdown()
