"""Faults of a cluster's parts while a sweep runs on it: whole nodes, links, services, trials, the driver, the head.

Shared by the tests and by benchmarks/node_kills.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.cluster.kills import VICTIMS, Sweep
from tests.cluster.namespaces import HEAD, NamespaceCluster

ROOT = Path(__file__).parent.parent.parent
PROCESSES = ("trial", "scorer", "neighbors", "store")  # of VICTIMS, on whichever node they are
FAULTS = (*PROCESSES, "node", "link", "driver", HEAD)


def start(cluster: NamespaceCluster, sweep: Sweep, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command on the head node."""
    command = [sys.executable, "-m", "ray_al", "run", str(sweep.file), "--address", "auto"]
    return cluster.popen(command, sweep.file.with_suffix(".log"), ROOT, **environment)


def rounds(sweep: Sweep) -> int:
    """Files on record so far, a finished trajectory counting as one."""
    return sum(1 for _ in (sweep.folder / "ledger").glob("**/*.parquet"))


def wait_for_rounds(sweep: Sweep, process: subprocess.Popen[bytes], number: int, seconds: float = 120) -> bool:
    """Until that many files are on record; whether they are, and the command is still running."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and rounds(sweep) < number and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.poll() is None and rounds(sweep) >= number


def strike(cluster: NamespaceCluster, process: subprocess.Popen[bytes], fault: str, rng: np.random.Generator) -> bool:
    """Let one fault happen; whether its victim was there. A node that was killed is started again, empty."""
    if fault == "driver":
        victims = cluster.processes(HEAD, "ray_al run")
    elif fault in PROCESSES:
        found = [pid for name in cluster.nodes for pid in cluster.processes(name, VICTIMS[fault] or "")]
        victims = [int(rng.choice(found))] if found else []
    else:
        return _strike_node(cluster, process, fault, rng)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return bool(victims)


def _strike_node(
    cluster: NamespaceCluster, process: subprocess.Popen[bytes], fault: str, rng: np.random.Generator
) -> bool:
    workers = [name for name in cluster.nodes if name != HEAD]
    name = HEAD if fault == HEAD else str(rng.choice(workers))
    if fault == "link":
        cluster.link(name, up=False)
        time.sleep(float(rng.uniform(1, 8)))
        cluster.link(name, up=True)
        return True
    cluster.kill(name)
    if name == HEAD:  # and with it the driver, and what the others were part of
        process.wait(timeout=60)
        for worker in workers:
            cluster.kill(worker)
        for each in (HEAD, *workers):
            cluster.start(each)
        cluster.wait(len(workers) + 1)
    else:
        cluster.start(name)
    return True
