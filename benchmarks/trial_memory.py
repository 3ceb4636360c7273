"""Memory of 1, 10 and 50 trajectories at once on one machine: logistic regression on CIFAR-10 features.

Each is a real trajectory (entropy, 100 labels a round); fits and scores are the services' work. They share two trial
processes, and in a second series have one each. A count is measured once all its trajectories have recorded a round,
and then until each has gone on, so that they are seen to make progress together; the run is then stopped as Ctrl-C
does.

    RAY_AL_DATA=<folder with cifar10_effnetlite0_pca256.npz> python -m benchmarks.trial_memory
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.machine import machine, write_json
from benchmarks.memory import MB, available_mb, private_mb, trial_processes

ROOT = Path(__file__).parent.parent
DATA = "cifar10_effnetlite0_pca256"
TIMEOUT = 900


def write_sweep(folder: Path, count: int, cores: int, shared: bool) -> Path:
    """A sweep of `count` long trajectories that all run at once on half of the cores; scorers take the other half."""
    trials = min(count, 2) if shared else count
    raw = {
        "name": "memory",
        "storage": str(folder / "runs"),
        "axes": {"dataset": [DATA], "learner": ["logreg"], "strategy": ["entropy"], "seed": count},
        "protocol": {"initial": 100, "balanced": True, "batch": 100, "rounds": 400},
        "resources": {
            "trial": {
                "cpus": round(max(cores // 2, 1) / max(trials, 2), 4),
                "together": -(-count // trials),
            }
        },
    }
    path = folder / "memory.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def rounds_of(folder: Path) -> dict[str, int]:
    """Rounds on record of every trajectory that has begun."""
    ledger = folder / "runs" / "memory" / "ledger"
    if not ledger.is_dir():
        return {}
    return {
        entry.name: sum(p.suffix == ".parquet" for p in entry.iterdir()) for entry in ledger.iterdir() if entry.is_dir()
    }


def measure(count: int, cores: int, more_rounds: int, shared: bool) -> dict[str, Any]:
    """Memory while `count` trajectories run, each for `more_rounds` rounds after all of them began."""
    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as name:
        folder = Path(name)
        command = [
            sys.executable,
            "-m",
            "ray_al",
            "run",
            str(write_sweep(folder, count, cores, shared)),
            "--no-dashboard",
        ]
        before = available_mb()
        started = time.monotonic()
        with open(folder / "log", "w+") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                begin = _until(process, lambda: len(r := rounds_of(folder)) >= count and min(r.values()) >= 1 and r)
                began = time.monotonic()
                peak = 0.0
                while not _all_on(rounds_of(folder), begin, more_rounds):
                    peak = max(peak, before - available_mb())
                    _check(process, started)
                    time.sleep(0.2)
                seconds = time.monotonic() - began
                root = psutil.Process(process.pid)
                trials = [trial.memory_full_info() for trial in trial_processes(root)]
                hosts = [child for child in root.children(recursive=True) if child.name().startswith("ray::")]
                services = {p.name(): private_mb(p) for p in hosts if "Host" in p.name() or "Store" in p.name()}
                end = rounds_of(folder)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=120)
                log.seek(0)
                text = log.read()
        if process.returncode != 130:
            raise SystemExit(f"ray-al run ended with {process.returncode}, not by being stopped:\n{text[-4000:]}")
    made = [end[key] - begin[key] for key in begin]
    private = [trial.uss / MB for trial in trials]
    return {
        "trajectories": count,
        "trial_processes": len(trials),
        "shared": shared,
        "trial_private_mb": sum(private),
        "trial_private_mb_a_trajectory": sum(private) / count,
        "trial_private_mb_largest": max(private),
        "trial_proportional_mb": sum(trial.pss for trial in trials) / MB,
        "trial_resident_mb": sum(trial.rss for trial in trials) / MB,
        "services_private_mb": services,
        "machine_mb_peak": peak,
        "seconds_until_all_began": began - started,
        "seconds": seconds,
        "rounds_per_second": sum(made) / seconds,
        "rounds_fewest_and_most": [min(made), max(made)],
    }


def _all_on(now: dict[str, int], begin: dict[str, int], more: int) -> bool:
    return all(now[key] >= begin[key] + more for key in begin)


def _check(process: subprocess.Popen[bytes], started: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"ray-al run ended with {process.returncode} before it was measured")
    if time.monotonic() - started > TIMEOUT:
        raise SystemExit(f"not all trials went on within {TIMEOUT} s")


def _until(process: subprocess.Popen[bytes], ready: Any) -> Any:
    started = time.monotonic()
    while not (found := ready()):
        _check(process, started)
        time.sleep(0.2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--series", nargs="+", choices=("shared", "alone"), default=["shared", "alone"])
    parser.add_argument("--more-rounds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/trial_memory.json")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"machine": machine(), "cells": [], "machine_mb_per_extra_trajectory": {}}
    for name in options.series:
        cells = [measure(count, cores, options.more_rounds, name == "shared") for count in options.counts]
        result["cells"] += cells
        few, many = cells[0], cells[-1]
        if extra := many["trajectories"] - few["trajectories"]:
            grown = many["machine_mb_peak"] - few["machine_mb_peak"]
            result["machine_mb_per_extra_trajectory"][name] = grown / extra
    write_json(options.out, result)


if __name__ == "__main__":
    main()
