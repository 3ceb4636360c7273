"""A pool larger than memory would hold twice: one sweep over 10 M rows of 512, float16, read from the disk's pages.

    python -m benchmarks.large_pool                            # 10 M x 512 float16 (10 GB), in a scratch folder
    python -m benchmarks.large_pool --rows 16000000 --width 50 --dtype float32
    python -m benchmarks.large_pool --quick                    # 200,000 rows: does it run?

The rows are Tiny ImageNet's embeddings (RAY_AL_DATA), repeated side by side and one below another with noise. Seconds
are those of `ray-al run`, round by round from its results; memory is the machine's, sampled while it runs: "anonymous"
is what processes hold for themselves, "shared" the object store; beside these the kernel keeps pages of the file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.machine import machine, write_json

STRATEGIES = ("random", "entropy", "kcenter_greedy", "badge")
CLASSES, BLOCK = 200, 100_000


def write_rows(folder: Path, rows: int, width: int, dtype: str) -> None:
    """x.npy, y.npy and a test split of 10,000."""
    with np.load(Path(os.environ["RAY_AL_DATA"]) / "tinyimagenet_effnetlite0_pca256.npz", allow_pickle=False) as data:
        base, labels = data["train_features"], data["train_labels"]
        test, test_labels = data["test_features"], data["test_labels"]
    wide = -(-width // base.shape[1])
    spread = base.astype(np.float32).std()
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", dtype, (rows, width))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (rows,))
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        rng = np.random.default_rng(start)
        at = np.arange(count) % len(base)
        noise = 0.2 * spread * rng.standard_normal((count, width), np.float32)
        x[start : start + count] = np.tile(base[at], wide)[:, :width] + noise
        y[start : start + count] = labels[at]
    x.flush()
    y.flush()
    np.save(folder / "test_x.npy", np.tile(test, wide)[:, :width].astype(dtype))
    np.save(folder / "test_y.npy", test_labels)


class MemoryWatch(threading.Thread):
    """The machine's memory in GiB, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop, self.peaks = threading.Event(), {"anonymous": 0.0, "shared": 0.0}

    def run(self) -> None:
        while not self.stop.wait(0.2):
            found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
            for name, key in (("anonymous", "AnonPages"), ("shared", "Shmem")):
                self.peaks[name] = max(self.peaks[name], int(found[key].split()[0]) / 2**20)


def run_sweep(folder: Path, rounds: int, batch: int) -> dict[str, Any]:
    from ray_al import load_results

    files = {"features": "x.npy", "labels": "y.npy", "test_features": "test_x.npy", "test_labels": "test_y.npy"}
    dataset = {"name": "arrays", "label": "large", **{key: str(folder / file) for key, file in files.items()}}
    sweep = {
        "name": "large",
        "storage": str(folder / "runs"),
        "axes": {"dataset": [dataset], "learner": ["logreg"], "strategy": list(STRATEGIES), "seed": 1},
        "protocol": {"initial": CLASSES, "batch": batch, "rounds": rounds},
    }
    (folder / "large.yaml").write_text(yaml.safe_dump(sweep))
    before = MemoryWatch()
    before.start()
    time.sleep(0.5)
    base = dict(before.peaks)
    started = time.perf_counter()
    command = [sys.executable, "-m", "ray_al", "run", str(folder / "large.yaml"), "--no-dashboard"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    before.stop.set()
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    table = load_results(folder / "runs" / "large")
    table = table[table["round"] > 0]
    return {
        "seconds": seconds,
        "peak_gib": {name: round(before.peaks[name] - base[name], 2) for name in base},
        "seconds_select": table.groupby("strategy")["seconds_select"].mean().round(2).to_dict(),
        "seconds_fit": round(table["seconds_fit"].mean(), 2),
        "accuracy": table.groupby("strategy")["accuracy"].last().round(4).to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scratch", type=Path, help="where the rows are written; the system's temporary folder")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = 200_000 if args.quick else args.rows
    name = f"large_pool_{rows}x{args.width}_{args.dtype}.json"
    found = machine()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        started = time.perf_counter()
        write_rows(Path(scratch), rows, args.width, args.dtype)
        print(f"rows written in {time.perf_counter() - started:.0f} s", flush=True)
        result = run_sweep(Path(scratch), args.rounds, args.batch)
    size = {"rows": rows, "width": args.width, "dtype": args.dtype, "rounds": args.rounds, "batch": args.batch}
    write_json(args.out or Path(__file__).parent / "results" / name, {"machine": found, **size, **result})


if __name__ == "__main__":
    main()
