"""Sweeps over several machines, real faults included: network namespaces where they may be made, raylets elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from ray_al import load_results
from ray_al.verify import verify_sweep
from tests.cluster.kills import Sweep, write_sweep
from tests.cluster.namespaces import HEAD, NamespaceCluster, missing
from tests.cluster.node_faults import ROOT, start, wait_for_rounds

pytestmark = pytest.mark.slow
REASON = missing()
SMALL = {"strategy": ["random", "badge", "typiclust", {"name": "tests.cluster.nearest:Nearest"}], "seed": 2}


def _check_equal(sweep: Sweep) -> None:
    """Every round is on record once, and equals that of a run in one process without Ray."""
    frame = load_results(sweep.folder)
    assert frame.groupby("trajectory_id").size().tolist() == [8] * 8
    assert (frame.status == "ok").all()
    assert verify_sweep(str(sweep.folder), 8, 0, Console(quiet=True)) == []


@pytest.mark.skipif(bool(REASON), reason=REASON or "-")
def test_a_machine_is_lost_while_a_sweep_runs(tmp_path: Path) -> None:
    """Three machines with a token; a wrong one is told at once; one machine loses its power, another its link."""
    with NamespaceCluster(workers=2) as cluster:
        sweep = write_sweep(tmp_path, tmp_path / "runs", **SMALL)
        process = start(cluster, sweep, RAY_AUTH_TOKEN="0" * 32)
        assert process.wait(timeout=60) == 2
        refused = sweep.file.with_suffix(".log").read_text()
        assert "the token of RAY_AUTH_TOKEN is not that of the Ray cluster" in refused
        assert "Traceback" not in refused
        process = start(cluster, sweep)
        log = sweep.file.with_suffix(".log")
        assert wait_for_rounds(sweep, process, 8), log.read_text()
        trials = {name: len(cluster.processes(name, "ray::ImplicitFunc")) for name in cluster.nodes}
        assert sum(count > 0 for count in trials.values()) > 1, f"no sweep over several machines: {trials}"
        cluster.link("node2", up=False)
        time.sleep(1)
        cluster.link("node2", up=True)
        cluster.kill("node1")
        assert process.wait(timeout=120) == 0, log.read_text()
        assert cluster.nodes[HEAD].alive
    _check_equal(sweep)


@pytest.mark.skipif(not REASON, reason="the test with network namespaces covers it")
def test_a_raylet_is_lost_while_a_sweep_runs(tmp_path: Path) -> None:
    """Three raylets on this machine; one of them dies. Needs no rights."""
    code = (
        "import sys, time\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]\n"
        "cluster.wait_for_nodes()\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.readline()\n"
        "cluster.remove_node(nodes[0], allow_graceful=False)\n"
        "print('removed', flush=True)\n"
        "sys.stdin.readline()\n"
        "cluster.shutdown()\n"
    )
    sweep = write_sweep(tmp_path, tmp_path / "runs", **SMALL)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            address = holder.stdout.readline().strip()
            command = [sys.executable, "-m", "ray_al", "run", str(sweep.file), "--address", address]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            assert wait_for_rounds(sweep, process, 8)
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline().strip() == "removed"
            assert process.wait(timeout=120) == 0
        finally:
            holder.stdin.close()
            holder.wait(timeout=60)
    _check_equal(sweep)
