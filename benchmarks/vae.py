"""VAE core-sets: seconds and peak memory of training the auto-encoder and of k-means partitions, on digits 0, 3, 9.

    python -m benchmarks.vae                # MNIST (RAY_AL_DATA): 18,003 images, 10 epochs, a few minutes on two cores
    python -m benchmarks.vae --quick        # 8 x 8 digits, one epoch: does it run?

Every cell runs in a process of its own, so that its peak memory is its own. k-means has 20 clusters and one start, as
the strategy kmeans_partition runs it; the other side is scikit-learn's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels import peak_mb
from benchmarks.machine import machine, write_json

CLUSTERS, REPEATS = 20, 5


def images(quick: bool) -> tuple[np.ndarray, float]:
    """(N, H, W) uint8 of the digits 0, 3 and 9, and the value of white."""
    from ray_al.data.datasets import load_dataset, parse_dataset

    dataset = load_dataset(parse_dataset({"name": "digits" if quick else "mnist", "classes": [0, 3, 9]}))
    return np.asarray(dataset.arrays["pool"]), dataset.pixel_max


def train(quick: bool, kl_mode: str, device: str) -> dict[str, Any]:
    """Training with the paper's settings, and encoding all images."""
    from ray_al.data.vae_space import last
    from ray_al.generative.vae import VaeSettings
    from ray_al.generative.vae_network import fit

    pool, white = images(quick)
    settings = VaeSettings(3, kl_mode=kl_mode, epochs=1 if quick else 10, device=device)
    before, started = peak_mb(), time.perf_counter()
    done = last(fit({"pool": pool}, white, settings), lambda epoch: print(epoch, file=sys.stderr, flush=True))
    seconds = time.perf_counter() - started
    return {
        "images": len(pool),
        "epochs": settings.epochs,
        "trained_on": done.device,
        "seconds": seconds,
        "seconds_per_epoch": float(np.median([epoch.seconds for epoch in done.history])),
        "loss": done.history[-1].loss,
        "variances": done.variances.tolist(),
        "peak_mb": peak_mb(),
        "added_mb": peak_mb() - before,
    }


def cluster(quick: bool, side: str, space: str) -> dict[str, Any]:
    """k-means of the pixels, or of as many rows in three dimensions (three blobs); the median of some seeds."""
    from ray_al.kernels.kmeans import kmeans

    pool, white = images(quick)
    x = pool.reshape(len(pool), -1).astype(np.float32) / np.float32(white)
    if space == "latent":
        rng = np.random.default_rng(0)
        x = (rng.normal(size=(len(pool), 3)) + 3 * np.eye(3)[rng.integers(0, 3, len(pool))]).astype(np.float32)
    if side == "scikit-learn":
        from sklearn.cluster import KMeans

        def work(seed: int) -> float:
            return float(KMeans(CLUSTERS, n_init=1, random_state=seed).fit(x).inertia_)
    else:

        def work(seed: int) -> float:
            return kmeans(x, CLUSTERS, seed)[2]

    work(0)  # compiles
    before, seconds, inertia = peak_mb(), [], []
    for seed in range(1, 2 if quick else 1 + REPEATS):
        started = time.perf_counter()
        inertia.append(work(seed))
        seconds.append(time.perf_counter() - started)
    return {
        "rows": len(x),
        "dims": x.shape[1],
        "clusters": CLUSTERS,
        "seconds": float(np.median(seconds)),
        "inertia": float(np.mean(inertia)),
        "peak_mb": peak_mb(),
        "added_mb": peak_mb() - before,
    }


def in_subprocess(quick: bool, *cell: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.vae", "--cell", json.dumps([quick, *cell])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="auto", help="what the auto-encoder is trained on: auto, cpu, cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "vae.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        quick, what, *rest = json.loads(args.cell)
        print(json.dumps(train(quick, *rest) if what == "train" else cluster(quick, *rest)))
        return
    trainings = [
        {"kl_mode": mode, **in_subprocess(args.quick, "train", mode, args.device)} for mode in ("book", "elbo")
    ]
    clusterings = [
        {"space": space, "side": side, **in_subprocess(args.quick, "cluster", side, space)}
        for space in ("pixels", "latent")
        for side in ("ray-al", "scikit-learn")
    ]
    write_json(args.out, {"machine": machine(), "training": trainings, "kmeans": clusterings})


if __name__ == "__main__":
    main()
