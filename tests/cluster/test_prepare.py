"""Preparations of learners in a task that has a GPU, where trials have a share of one."""

from __future__ import annotations

import numpy as np
import pytest

from ray_al.assemble import LocalReader, materialize, preparation_of
from ray_al.cluster.prepare import TaskPreparer
from ray_al.config import parse_sweep
from ray_al.data.artifacts import ArtifactStore
from ray_al.storage import Storage

pytestmark = pytest.mark.slow
LEARNER = {"name": "convnet13", "width": 2, "pretrain": "deepcluster", "pretrain_epochs": 1, "device": "cpu"}


def build(folder, gpus: float) -> np.ndarray:
    sweep = parse_sweep(
        {
            "name": "x",
            "storage": str(folder),
            "axes": {
                "dataset": [{"name": "digits", "limit": 60}],
                "learner": ["logreg", {**LEARNER, "label": "a"}, {**LEARNER, "epochs": 3, "label": "b"}],
                "strategy": ["random"],
                "seed": 2,
            },
            "protocol": {"initial": 10, "batch": 5, "rounds": 2},
        }
    )
    store = ArtifactStore(Storage.open(folder))
    keys = materialize(sweep, store, sweep.trajectories, TaskPreparer(str(folder), gpus))[0]
    made = [name for name in keys.spaces if name.startswith("deepcluster:")]
    needed = [preparation_of(keys.classes, t.learner) for t in sweep.trajectories]
    assert made == sorted({prepared.name for prepared in needed if prepared})
    assert len(list((folder / "artifacts").glob("deepcluster-*"))) == 1
    return LocalReader(store, keys).read(made[0], "weights")


def test_a_task_makes_what_this_process_makes(tmp_path):
    """On a GPU that Ray believes in; the learner keeps to the processor."""
    import ray

    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    try:
        there = build(tmp_path / "there", 0.25).copy()
    finally:
        ray.shutdown()
    assert (there == build(tmp_path / "here", 0)).all()
