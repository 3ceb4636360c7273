"""Pool scoring on one GPU at ImageNet size: seconds, share of the memory's bandwidth, trajectories an hour.

    python -m benchmarks.gpu                                             # all of it; needs torch and numpy alone
    python -m benchmarks.gpu --sections checks,scores
    python -m benchmarks.gpu --device cpu --rows-scale 0.001 --width 32  # does it run?

Features are synthetic: clusters, one a class. Rows, picks and labels are multiplied by --rows-scale. A section that
fails is recorded with its reason, and the exit code is 1. The JSON is written after every section.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_sections import SECTIONS, Bench
from benchmarks.machine import machine


def device_record(bench: Bench) -> dict[str, Any]:
    if not bench.on_gpu:
        return {"name": str(bench.device)}
    found = torch.cuda.get_device_properties(bench.device)
    return {"name": found.name, "memory_gib": round(found.total_memory / 2**30, 1), "cuda": torch.version.cuda}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows-scale", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=512, help="numbers of a row")
    parser.add_argument(
        "--limit", type=float, default=200, help="seconds for all trajectories; the rest is extrapolated"
    )
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--out", type=Path, help="default: results/gpu.json for a GPU, nowhere for another device")
    args = parser.parse_args()
    names = args.sections.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    bench = Bench(args.device, args.rows_scale, args.width, args.limit)
    out = args.out or (Path(__file__).parent / "results" / "gpu.json" if bench.on_gpu else Path(os.devnull))
    versions = machine(("ray-al", "numpy", "torch", "triton"))
    result: dict[str, Any] = {
        "machine": versions,
        "device": device_record(bench),
        "rows_scale": bench.scale,
        "width": bench.width,
    }
    failed = False
    for name in dict.fromkeys(["bandwidth", *names]):  # shares need it
        if bench.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(bench.device)
        started = time.perf_counter()
        try:
            result[name] = {"result": SECTIONS[name](bench)}
        except Exception as error:
            failed = True
            traceback.print_exc()
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
        result[name]["section_seconds"] = time.perf_counter() - started
        if bench.on_gpu:
            result[name]["peak_gib"] = torch.cuda.max_memory_allocated(bench.device) / 2**30
        if bench.triton_error:
            failed, result["triton_failed"] = True, bench.triton_error
        print(json.dumps({name: result[name]}, indent=1), flush=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
