"""What running costs beside the work itself: 200 trajectories of 20 rounds with a learner that does nothing.

Then the same number of processes' worth of real waiting: 2 seconds of work per trajectory against a plain for loop.
Writes benchmarks/results/runner_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, write_json

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Trivial:
    """A learner that answers the same probabilities for everything, after `work` seconds of arithmetic per fit."""

    work: float = 0.0
    heads = frozenset({"probs"})

    def fit(self, labeled: Any, assume: Any, pool: Any, rng: np.random.Generator) -> Any:
        burn(self.work)
        return Constant(pool)


@dataclass(frozen=True)
class Constant:
    pool: Any

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        n = len(ids) if ids is not None else (self.pool.size if split == "pool" else self.pool.test_size)
        return np.full((n, self.pool.classes), 1 / self.pool.classes)


def burn(seconds: float) -> None:
    """Compute, on one core, for this many seconds of processor time."""
    end = time.thread_time() + seconds
    x = np.arange(1000.0)
    while time.thread_time() < end:
        x = np.sqrt(x * x + 1)


def sweep(storage: str, trajectories: int, rounds: int, work: float) -> dict[str, Any]:
    return {
        "name": "overhead",
        "storage": storage,
        "axes": {
            "dataset": ["digits"],
            "learner": [{"name": "benchmarks.runner_overhead:Trivial", "work": work, "label": "trivial"}],
            "strategy": ["random"],
            "seed": trajectories,
        },
        "protocol": {"initial": 10, "batch": 10, "rounds": rounds},
    }


CHILD = """
import json, sys, time
started = time.perf_counter()
from rich.console import Console
from ray_al.config import parse_sweep
checked = parse_sweep(json.loads(sys.argv[1]))
from ray_al.cluster.sweep import run_sweep
outcome = run_sweep(checked, Console(stderr=True), dashboard=False)
assert outcome.done == outcome.total, outcome
print(json.dumps({"seconds": outcome.seconds, "driver_cpu_seconds": outcome.driver_cpu_seconds,
                  "whole_process_seconds": time.perf_counter() - started}))
"""


def measured_run(raw: dict[str, Any]) -> dict[str, Any]:
    """Run a sweep in a process of its own, watching the memory of its trial processes."""
    peaks: dict[str, float] = {}
    stop = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(raw)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, stop))
    watcher.start()
    output = process.communicate()[0]
    stop.set()
    watcher.join()
    return {**json.loads(output.splitlines()[-1]), **peaks}


def _watch(pid: int, peaks: dict[str, float], stop: threading.Event) -> None:
    """Largest resident and unique (private) memory of a trial process, MB."""
    import psutil

    while not stop.wait(0.5):
        try:
            children = psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        trials = 0
        for child in children:
            try:
                if "ImplicitFunc" not in " ".join(child.cmdline()):
                    continue
                trials += 1
                memory = child.memory_full_info()
            except psutil.Error:
                continue
            peaks["trial_rss_mb"] = max(peaks.get("trial_rss_mb", 0.0), memory.rss / 2**20)
            peaks["trial_uss_mb"] = max(peaks.get("trial_uss_mb", 0.0), memory.uss / 2**20)
        peaks["trial_processes"] = max(peaks.get("trial_processes", 0), trials)


def overhead(trajectories: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = measured_run(sweep(folder, trajectories, rounds, 0.0))
    found["trajectories_per_minute"] = 60 * trajectories / found["seconds"]
    found["rounds_per_second"] = trajectories * rounds / found["seconds"]
    found["driver_cpu_ms_per_round"] = 1000 * found["driver_cpu_seconds"] / (trajectories * rounds)
    return {"trajectories": trajectories, "rounds": rounds, **found}


def against_a_loop(trajectories: int, rounds: int) -> dict[str, Any]:
    """2 s of work per trajectory, spread over its rounds: Ray with all cores against one process's for loop."""
    work = 2.0 / rounds
    with tempfile.TemporaryDirectory() as folder:
        ours = measured_run(sweep(folder, trajectories, rounds, work))
    started = time.perf_counter()
    for _ in range(trajectories):
        for _ in range(rounds):
            burn(work)
    loop = time.perf_counter() - started
    whole = ours["whole_process_seconds"]
    return {
        "trajectories": trajectories,
        "rounds": rounds,
        "ray_al_seconds": ours["seconds"],
        "ray_al_seconds_with_start_up": whole,
        "for_loop_seconds": loop,
        "ratio": ours["seconds"] / loop,
        "ratio_with_start_up": whole / loop,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trajectories")
    parser.add_argument("--out", default="benchmarks/results/runner_overhead.json")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    scale = 10 if options.quick else 1
    result = {
        "machine": machine(),
        "overhead": overhead(200 // scale, 20),
        "two_seconds_of_work": against_a_loop(100 // scale, 20),
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
