"""cluster.yaml and docs/cluster: valid by Ray's own rules, and with the guarantees that their comments give."""

from __future__ import annotations

import copy
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FILES = {"aws": ROOT / "cluster.yaml", "local": ROOT / "docs" / "cluster" / "local.yaml"}
SLURM = ROOT / "docs" / "cluster" / "slurm.sh"


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILES[request.param].read_text())
    return loaded


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    """As `ray up` does: defaults filled in, then the schema and the rules beyond it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    with pytest.raises(Exception, match="Additional properties"):
        validate_config({**prepared, "no_such_key": 1})


def _starts(config: dict[str, Any]) -> list[str]:
    lines = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [line for line in lines if "ray start" in line]


def test_the_dashboard_is_on_loopback_and_nodes_ask_for_the_token(config: dict[str, Any]) -> None:
    head, worker = _starts(config)
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert all("RAY_AUTH_MODE=token" in line for line in (head, worker))
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in line for line in config["setup_commands"])
    text = yaml.safe_dump(config)
    assert "RAY_AUTH_TOKEN" not in text  # a token in a file, never in the configuration
    for word in ("0.0.0.0", "::/0", "security_group", "IpPermissions", "ray-client-server-port"):
        assert word not in text


def test_aws_workers_come_and_go_and_the_head_has_no_gpu() -> None:
    config = yaml.safe_load(FILES["aws"].read_text())
    head, *workers = (config["available_node_types"][name] for name in ("head", "cpu", "gpu"))
    assert config["head_node_type"] == "head"
    assert head["resources"]["GPU"] == 0
    assert all(worker["min_workers"] == 0 for worker in workers)
    assert all(worker["max_workers"] <= config["max_workers"] for worker in workers)
    assert config["provider"]["cache_stopped_nodes"] is False
    marked = [line for line in FILES["aws"].read_text().splitlines() if "# EDIT" in line]
    assert 4 <= len(marked) <= 8  # a few named lines


def test_ray_starts_no_gpu_machine_for_work_that_needs_none() -> None:
    scheduler = pytest.importorskip("ray.autoscaler._private.resource_demand_scheduler")
    tracker = pytest.importorskip("ray.autoscaler._private.node_provider_availability_tracker")
    kinds = yaml.safe_load(FILES["aws"].read_text())["available_node_types"]
    kinds = {name: {"min_workers": 0, "max_workers": 0, **kind} for name, kind in kinds.items()}
    score = partial(
        scheduler._default_utilization_scorer, node_availability_summary=tracker.NodeAvailabilitySummary({})
    )
    for trial, kind in (({"CPU": 0.25}, "cpu"), ({"CPU": 0.25, "GPU": 0.5}, "gpu")):
        start, _ = scheduler.get_nodes_for(kinds, {"head": 1}, "head", 8, [trial] * 20, score)
        assert set(start) == {kind}


def test_the_autoscaler_says_what_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_al.cluster.autoscaler import coming_nodes
    from ray_al.cluster.resources import node_faults
    from ray_al.sweep_file import ResourcesSection

    wish = ResourcesSection.model_validate({"trial": {"cpus": 6, "gpus": 1}})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    head = [{"CPU": 4.0}]
    assert coming_nodes(wish) == []
    assert len(node_faults(wish, head)) == 2
    (tmp_path / "ray_bootstrap_config.yaml").write_text(FILES["aws"].read_text())
    coming = coming_nodes(wish)
    assert coming == [{"CPU": 8.0, "GPU": 0.0}] * 8 + [{"CPU": 8.0, "GPU": 1.0}] * 8
    assert node_faults(wish, [*head, *coming]) == []
    too_much = ResourcesSection.model_validate({"trial": {"gpus": 2}})
    assert len(node_faults(too_much, [*head, *coming_nodes(too_much)])) == 1
    (tmp_path / "ray_bootstrap_config.yaml").write_text("available_node_types: [1")
    assert coming_nodes(wish) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert node_faults(too_much, [*head, *coming_nodes(too_much)]) == []


def test_the_job_manifest() -> None:
    job = yaml.safe_load((ROOT / "docs" / "cluster" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert "ray-al run" in spec["entrypoint"]
    assert "--address auto" in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)  # the first with tokens
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert cluster["rayVersion"] == pinned[1]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert group["template"]["spec"]["restartPolicy"] == "Never"  # the autoscaler asks for it
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert "rayStartParams" in group
    gpus = []
    for workers in cluster["workerGroupSpecs"]:
        assert 0 == workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
        gpus.append("nvidia.com/gpu" in workers["template"]["spec"]["containers"][0]["resources"]["limits"])
    assert gpus == [False, True]
    text = yaml.safe_dump(job)
    assert not any(word in text for word in ("LoadBalancer", "NodePort", "Ingress", "hostNetwork"))


def test_the_slurm_script() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    text = SLURM.read_text()
    assert "set -euo pipefail" in text
    assert "--dashboard-host=127.0.0.1" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "umask 077" in text
    used = subprocess.run(["bash", str(SLURM)], capture_output=True, text=True, check=False)
    assert used.returncode != 0
    assert "usage: sbatch docs/cluster/slurm.sh" in used.stderr
