"""The sweeps of the VAE core-set paper: their trial runs, and where a run trains."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ray_al.assemble import run_locally
from ray_al.cluster.vae_training import VaeTraining
from ray_al.config import load_sweep
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import dataset_artifact, open_array, space_artifact
from ray_al.generative.vae import VaeSettings
from ray_al.storage import Storage

SWEEPS = Path(__file__).parent.parent.parent / "sweeps"


@pytest.mark.parametrize(("name", "systems"), [("three", 10), ("four", 10), ("five", 10), ("full", 6)])
def test_the_sweeps_are_whole(name, systems, tmp_path):
    sweep = load_sweep(SWEEPS / f"vae_{name}.yaml", [f"storage={tmp_path}"], smoke=True)
    assert len(sweep.trajectories) == systems


def test_every_system_runs(tmp_path):
    sweep = load_sweep(SWEEPS / "vae_three.yaml", [f"storage={tmp_path}"], smoke=True)
    storage = Storage.open(tmp_path)
    picks = {}
    for trajectory in sweep.trajectories:
        records = list(run_locally(sweep, trajectory, storage))
        assert [record.labels for record in records] == [20, 40]
        assert all(0 < record.accuracy <= 1 for record in records)
        picks[trajectory.name.strategy, trajectory.name.learner] = [record.asked_ids.tolist() for record in records]
    for strategy in {strategy for strategy, _ in picks}:  # the crossed ones are the same points in another classifier
        assert picks[strategy, "svc-input"] == picks[strategy, "svc-latent"]
    assert picks["geometric-input", "svc-input"] != picks["geometric-latent", "svc-input"]
    assert len(list((tmp_path / "artifacts").glob("space-*/weights.safetensors"))) == 1


def build(tmp_path: Path, gpus: bool) -> tuple[np.ndarray, str]:
    sweep = load_sweep(SWEEPS / "vae_three.yaml", [f"storage={tmp_path}"], smoke=True)
    store, out = ArtifactStore(Storage.open(tmp_path)), io.StringIO()
    train = VaeTraining(str(tmp_path), Console(file=out), gpus)
    artifact = space_artifact(store, sweep.datasets[0], sweep.spaces[0]["latent"], sweep.spaces[0], train)
    return np.array(open_array(artifact, "pool")), out.getvalue()


def test_a_run_tells_of_every_epoch(tmp_path):
    _, said = build(tmp_path, gpus=False)
    lines = said.splitlines()
    assert lines[0] == "space 'latent' of dataset 'digits-three': training a VAE of 3 dimensions"
    assert lines[1].startswith("space 'latent' of dataset 'digits-three': epoch 1 of 2, loss 0.")
    assert "epoch 2 of 2" in lines[2]


@pytest.mark.slow
def test_a_cluster_with_a_gpu_trains_in_a_task(tmp_path):
    """Of a GPU that Ray believes in, but that is none: the codes are those of the processor."""
    import ray

    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    try:
        there, said = build(tmp_path / "there", gpus=True)
        store = ArtifactStore(Storage.open(tmp_path / "there"))
        sweep = load_sweep(SWEEPS / "vae_three.yaml", [f"storage={tmp_path}"], smoke=True)
        training = VaeTraining(str(tmp_path / "there"), Console(file=io.StringIO()), True)
        with pytest.raises(ValueError, match="device is cuda:7, but this process can use"):
            training(dataset_artifact(store, sweep.datasets[0]), VaeSettings(2, device="cuda:7"), "x")
    finally:
        ray.shutdown()
    assert "epoch 2 of 2" in said
    import torch

    if not torch.cuda.is_available():
        np.testing.assert_array_equal(there, build(tmp_path / "here", gpus=False)[0])
