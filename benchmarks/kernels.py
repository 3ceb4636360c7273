"""Kernels against plain numpy and scikit-activeml: seconds, peak memory and quality of the picks.

    python -m benchmarks.kernels                    # N = 20k, 100k, 1M, d = 64 and 512, b = 100 and 1000
    python -m benchmarks.kernels --quick            # N = 5k, d = 64, b = 50: does it run?
    python -m benchmarks.kernels --sizes 20000x64x100,100000x512x1000

Each cell is measured in a process of its own, so that its peak memory is its own; of those that take less than two
seconds the median of five processes is reported. A cell of the others that would take
more than --limit seconds, as projected from a tenth of the rows and picks, is reported at that smaller size
(`measured_at`) beside its projection; its ratio compares ray-al's seconds with the projection. "16 at once" is ray-al
for as many trajectories through one pool scorer, in seconds of one. For k-center, `equal_picks` counts those that are
ray-al's. scikit-activeml is left out when it is not installed: pip install ray-al[bench].
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

from benchmarks.kernel_sides import AT_ONCE, LABELED, PREPARE, Size, make_task, score
from benchmarks.machine import machine

SHORT, REPEATS = 2.0, 5  # seconds: fresh memory costs a process more at one time than at another
OURS = ("ray-al", "16 at once")
KERNELS = ("entropy", "kcenter_greedy", "badge", "typiclust")
QUALITY = {
    "entropy": "mean entropy of the picks, nats (more is better)",
    "kcenter_greedy": "covering radius (less is better)",
    "badge": "mean squared distance of gradient embeddings to the nearest pick (less is better)",
    "typiclust": "mean distance of the rows to the nearest pick (less is better)",
}


def peak_mb() -> float:
    """Highest resident memory of this process in MB (Linux, where it can be reset; elsewhere NaN)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


def measure(kernel: str, side: str, size: Size) -> dict:
    """One cell, in this process. A first call at a small size takes imports and thread pools out of the figures."""
    prepare = PREPARE[side]
    warnings.simplefilter("ignore")
    prepare(kernel, make_task(Size(600, size.d, 5)))()
    task = make_task(size)
    work = prepare(kernel, task)
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    started = time.perf_counter()
    picks = work()
    seconds = time.perf_counter() - started
    peak = peak_mb()
    if isinstance(picks, list):
        seconds /= AT_ONCE  # of one trajectory
    found = {"seconds": seconds, "peak_mb": peak, "added_mb": peak - before}
    if isinstance(picks, list):  # of several trajectories
        return found
    return {**found, "quality": score(kernel, task, picks), "picks": picks.tolist()}


def in_subprocess(kernel: str, side: str, size: Size, timeout: float) -> dict:
    """`measure` in a process of its own: of SHORT ones the median of REPEATS, with all their seconds."""
    found = [_in_subprocess(kernel, side, size, timeout)]
    while found[0].get("seconds", SHORT) < SHORT and len(found) < REPEATS and "skipped" not in found[-1]:
        found.append(_in_subprocess(kernel, side, size, timeout))
    if len(found) == 1 or "skipped" in found[-1]:
        return found[-1]
    found.sort(key=lambda cell: cell["seconds"])
    return {**found[len(found) // 2], "all_seconds": [cell["seconds"] for cell in found]}


def _in_subprocess(kernel: str, side: str, size: Size, timeout: float) -> dict:
    """{"skipped": reason} when it fails or takes too long."""
    command = [sys.executable, "-m", "benchmarks.kernels", "--cell", json.dumps([kernel, side, size])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done after {timeout:.0f} s"}
    if done.returncode:
        return {"skipped": f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def cell(kernel: str, side: str, size: Size, limit: float) -> dict:
    """A cell's figures; those of another side at a tenth of the rows and picks where the whole is beyond `limit`."""
    if side in OURS:
        return in_subprocess(kernel, side, size, 20 * limit)
    small = Size(max(size.n // 10, 2 * LABELED + size.b), size.d, max(size.b // 10, 1))
    probe = in_subprocess(kernel, side, small, limit)
    if "skipped" in probe:
        return probe
    passes = LABELED if kernel == "kcenter_greedy" else 0  # k-center passes over x for each label first
    growth = size.n / small.n * (1 if kernel == "entropy" else (passes + size.b) / (passes + small.b))
    projected = probe["seconds"] * growth
    if projected > limit:
        return {**probe, "measured_at": small._asdict(), "projected_seconds": projected}
    return in_subprocess(kernel, side, size, 5 * limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="NxDxB, comma-separated")
    parser.add_argument("--kernels", default=",".join(KERNELS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds a cell of the others may be projected to take"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kernels.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        kernel, side, size = json.loads(args.cell)
        print(json.dumps(measure(kernel, side, Size(*size))))
        return
    sizes = [Size(n, d, b) for n in (20_000, 100_000, 1_000_000) for d in (64, 512) for b in (100, 1000)]
    if args.sizes or args.quick:
        sizes = [Size(*map(int, text.split("x"))) for text in (args.sizes or "5000x64x50").split(",")]
    sides = [side for side in PREPARE if side != "scikit-activeml" or importlib.util.find_spec("skactiveml")]
    if len(sides) < len(PREPARE):
        print("scikit-activeml is not installed and left out; pip install ray-al[bench] brings it")
    cells, found = [], machine()
    for kernel in args.kernels.split(","):
        for size in sizes:
            reference, first = None, []
            for side in sides:
                if kernel == "typiclust" and (side == "16 at once" or size.n > 100_000):
                    continue  # k-means is not fused
                result = cell(kernel, side, size, args.limit)
                picks = result.pop("picks", None)
                if kernel == "kcenter_greedy" and picks and "measured_at" not in result:
                    first = picks if side == "ray-al" else first
                    result["equal_picks"] = sum(a == b for a, b in zip(picks, first, strict=True))
                seconds = result.get("projected_seconds", result.get("seconds"))
                reference = seconds if side == "ray-al" else reference
                ratio = seconds / reference if seconds and reference else None
                cells.append({"kernel": kernel, "side": side, **size._asdict(), **result, "ratio": ratio})
                print(json.dumps(cells[-1]), flush=True)
                # After each cell: a run that is stopped leaves what it measured.
                result = {"machine": found, "quality": QUALITY, "labeled": LABELED, "cells": cells}
                args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
