"""Run a sweep on Ray: connect to a cluster, hold the sweep's folder, go, and leave."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import ray
from rich.console import Console

from ray_al.cluster.autoscaler import coming_nodes
from ray_al.cluster.connect import Stop, cluster_nodes, connected, meanwhile
from ray_al.cluster.lease import only_run, refuse_second_run
from ray_al.cluster.resources import demand, node_faults
from ray_al.experiment import Sweep
from ray_al.results.compaction import finished
from ray_al.storage import Storage

SLOW = ("ray_al.cluster.run", "ray_al.results.report", "matplotlib.figure", "matplotlib.backends.backend_svg")


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `failed` maps trajectory ids to reasons."""

    done: int
    total: int
    failed: dict[str, str]
    stopped: bool  # by Ctrl-C or SIGTERM
    seconds: float  # from the first trial's start to the last one's end
    driver_cpu_seconds: float  # of this process in that time


def run_sweep(
    sweep: Sweep,
    console: Console,
    address: str | None = None,
    cpus: int | None = None,
    dashboard: bool = True,
    at_end: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run what is not done yet, and leave one Parquet dataset, whatever happens.

    `at_end` is called then, while the cluster is left, unless the run was stopped before it began.

    Raises:
        ConfigError: the cluster lacks what the sweep asks for, or another run of this sweep is going on.
    """
    storage = Storage.open(sweep.storage)
    folder = storage.child(sweep.name)
    outcome = Outcome(0, len(sweep.trajectories), {}, True, 0.0, 0.0)
    leave: Callable[[], None] | None = None
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stale = refuse_second_run(folder)  # before a cluster is started for nothing
        coming = coming_nodes(sweep.resources) if address else []
        there = finished(storage, sweep.name, sweep.by_id.keys())
        if there < sweep.by_id.keys():
            if not address:
                threading.Thread(target=_import_meanwhile, daemon=True).start()
            leave = stack.enter_context(connected(address, cpus, dashboard, console))
            demand(sweep.resources, sweep.trajectories, [*cluster_nodes(), *coming])  # refused before a write
            for fault in node_faults(sweep.resources, cluster_nodes()):
                console.print(f"{fault}; waiting for the autoscaler to bring one", markup=False, highlight=False)
        stop = stack.enter_context(Stop().listening())  # after Ray's own handler, which would end this process at once
        lease = stack.enter_context(only_run(folder, stale))
        from ray_al.cluster.run import Run

        run = Run(sweep, console, stop, there, coming, lease)  # which holds the services until the cluster is left
        outcome = run.go()
        try:
            if not outcome.stopped:
                stop.check()
            with meanwhile(leave) if leave else contextlib.nullcontext():
                at_end()
        except KeyboardInterrupt:
            outcome = replace(outcome, stopped=True)
    return outcome


def _import_meanwhile() -> None:
    """Import what takes a second or two, while a local cluster starts and leaves processors idle.

    Not before `ray.init` has forked the last of its processes: the child of a fork amid an import may wait for a lock
    forever.
    """
    this, deadline = psutil.Process(), time.monotonic() + 60
    with contextlib.suppress(Exception):  # who needs a module says what is wrong with it
        while not _has_child(this, "raylet"):
            if ray.is_initialized() or time.monotonic() > deadline:
                return
            time.sleep(0.05)
        for module in SLOW:
            importlib.import_module(module)


def _has_child(process: psutil.Process, name: str) -> bool:
    for child in process.children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if child.name() == name:
                return True
    return False
