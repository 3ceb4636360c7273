"""`python -m benchmarks`: all that need neither a GPU nor root, one by one; `--quick` shows that each runs."""

from __future__ import annotations

import os
import subprocess
import sys

QUICK = {
    "runner_overhead": ["--quick"],
    "kernels": ["--quick"],
    "mnist_against_skactiveml": ["--seeds", "1", "--rounds", "2"],
    "random_kills": ["--kills", "3"],
    "fits": ["--quick"],
    "grid": ["--grids", "cifar10", "--seeds", "1", "--rounds", "2"],
    "trial_memory": ["--counts", "1", "4"],
    "scheduler_scale": ["--trajectories", "300"],
    "fused": ["--quick"],
    "large_pool": ["--quick"],
    "neighbors": ["--quick"],
    "candidates": ["--quick"],
    "label_propagation": ["--quick"],
    "cg_tolerance": ["--quick"],
    "svc": ["--quick"],
    "features": ["--rows", "320"],
    "vae": ["--quick"],
}
NEED_DATA = (
    "mnist_against_skactiveml", "fits", "grid", "trial_memory", "large_pool", "neighbors", "candidates",
    "label_propagation", "cg_tolerance", "svc", "features",
)  # fmt: skip


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    for name, short in QUICK.items():
        if (name in NEED_DATA or (name == "vae" and not quick)) and "RAY_AL_DATA" not in os.environ:
            print(f"{name}: skipped, RAY_AL_DATA does not name a folder with the data it reads")
            continue
        print(f"== {name}", flush=True)
        out = ["--out", os.devnull] if quick else []
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *(short + out if quick else [])], check=True)


if __name__ == "__main__":
    main()
