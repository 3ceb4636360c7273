"""Run a sweep as a user would, kill one of its processes with SIGKILL at a chosen moment, and compare what is left.

Shared by the tests and by benchmarks/random_kills.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import yaml

from ray_al import load_results
from ray_al.results.schema import CIRCUMSTANCE_COLUMNS

COMMAND = [sys.executable, "-m", "ray_al", "run"]
# What each victim's process is called, as Ray titles it; the driver is the command itself.
VICTIMS = {
    "driver": None,
    "trial": "ray::ImplicitFunc",
    "scorer": "ray::ScorerHost",
    "neighbors": "ray::NeighborHost",
    "store": "ray::FeatureStore",
    "raylet": "/raylet/raylet",
    "runtime": "",  # every process of Ray at once
}

NEAREST = {"name": "tests.cluster.nearest:Nearest", "label": "nearest"}  # keeps the neighbor index busy


@dataclass(frozen=True)
class Sweep:
    file: Path
    folder: Path  # <storage>/<name>


def write_sweep(folder: Path, storage: Path, **axes: object) -> Sweep:
    """A sweep on digits that keeps two cores busy for some seconds."""
    raw = {
        "name": "kills",
        "storage": str(storage),
        "axes": {
            "dataset": ["digits"],
            "learner": ["logreg"],
            "strategy": ["random", "entropy", "kcenter_greedy", "badge", "typiclust", NEAREST],
            "seed": 2,
            **axes,
        },
        "protocol": {"initial": 10, "batch": 10, "rounds": 8},
    }
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(raw))
    return Sweep(path, storage / "kills")


def run(sweep: Sweep, *options: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [*COMMAND, str(sweep.file), "--no-dashboard", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def run_and_kill(
    sweep: Sweep, victims: Mapping[str, int], delay: float = 0.0, timeout: float = 300
) -> tuple[int, list[str]]:
    """Start the command; kill each of `victims`, in order, once so many rounds are on record and `delay` seconds have
    passed.

    Returns the command's exit code (-9 when it was a victim), and who was there to be killed: a command that ends
    before the moment comes is not touched.
    """
    command = [*COMMAND, str(sweep.file), "--no-dashboard"]
    with open(sweep.file.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline, seen, killed = time.monotonic() + timeout, _rounds(sweep.folder), []
            for victim, rounds in victims.items():
                while process.poll() is None and len(seen) < rounds and time.monotonic() < deadline:
                    time.sleep(0.02)
                    seen |= _rounds(sweep.folder)  # a finished trajectory has one file in place of its rounds'
                time.sleep(delay)
                if process.poll() is None and _kill(psutil.Process(process.pid), victim):
                    killed.append(victim)
            return process.wait(timeout=max(1.0, deadline - time.monotonic())), killed
        finally:
            if process.poll() is None:
                process.kill()


def _rounds(folder: Path) -> set[str]:
    """Files of rounds that are on record now, and of finished trajectories."""
    # os.walk, as folders of finished trajectories are removed meanwhile
    files = (os.path.join(top, name) for top, _, names in os.walk(folder / "ledger") for name in names)
    return {file for file in files if file.endswith(".parquet")}


def _kill(driver: psutil.Process, victim: str) -> bool:
    if victim == "driver":
        driver.kill()
        return True
    title, killed = VICTIMS[victim] or "", False
    for child in driver.children(recursive=True):
        try:
            name = " ".join(child.cmdline()) or child.name()
            if title in name:
                os.kill(child.pid, signal.SIGKILL)
                killed = True
                if victim != "runtime":
                    break
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return killed


def comparable(folder: Path) -> pd.DataFrame:
    """The results without what may differ between two runs of one experiment."""
    frame = load_results(folder)
    return frame.drop(columns=list(CIRCUMSTANCE_COLUMNS))


def assert_same_results(folder: Path, undisturbed: Path) -> None:
    """Equal in every column but timing, host and device; no trajectory left unfinished, no half file."""
    pd.testing.assert_frame_equal(comparable(folder), comparable(undisturbed), check_exact=True)
    assert not [p for p in folder.rglob(".*") if p.name != ".lock"], "a draft was left behind"
