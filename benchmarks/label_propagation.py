"""Label propagation: the fused block solve against one scipy.sparse.linalg.cg per class, at one residual.

    python -m benchmarks.label_propagation            # N = 50k and 100k, 10 and 100 classes, 1 and 16 trajectories
    python -m benchmarks.label_propagation --quick    # N = 3k: does it run?

On Tiny ImageNet's embeddings (RAY_AL_DATA), by cosine, k = 50. Each cell runs in a process of its own, so that its peak
memory is its own; the graph is timed apart, in another. `residual` is the largest |y - (I - alpha W) z| / |y| of all
columns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import embeddings
from benchmarks.kernels import peak_mb
from benchmarks.machine import machine, write_json

ALPHA, TOL, NEIGHBORS, PER_CLASS = 0.99, 1e-6, 50, 10


def build_graph(folder: Path, count: int, width: int) -> dict[str, float]:
    """The exact kNN graph by cosine, into `folder`; seconds and peak memory."""
    from ray_al.kernels.neighbors import UnitRows, build_index, graph_blocks

    x, labels = embeddings(count, width)
    list(graph_blocks(build_index(x[:500]), x[:500], 5))  # compiles
    before, started = start_clock()
    rows = UnitRows(x)
    parts = list(graph_blocks(build_index(rows), rows, NEIGHBORS))
    figures = stop_clock(before, started)
    np.save(folder / "ids.npy", np.concatenate([ids for ids, _ in parts]))
    np.save(folder / "distances.npy", np.concatenate([far for _, far in parts]))
    np.save(folder / "labels.npy", labels)
    return figures


def start_clock() -> tuple[float, float]:
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb(), time.perf_counter()


def stop_clock(before: float, started: float) -> dict[str, float]:
    seconds = time.perf_counter() - started
    peak = peak_mb()
    return {"seconds": seconds, "peak_mb": peak, "added_mb": peak - before}


def measure(folder: Path, side: str, classes: int, trajectories: int) -> dict[str, Any]:
    """One cell: every trajectory has labels of its own, PER_CLASS of each class."""
    from ray_al.kernels.affinity import affinity
    from ray_al.kernels.label_propagation import solve
    from ray_al.kernels.pseudo_labels import label_sources

    ids, far, labels = (np.load(folder / f"{name}.npy") for name in ("ids", "distances", "labels"))
    labels = labels % classes
    affinity(np.array([[1], [0]]), np.array([[0.5], [0.5]]))  # compiles
    started = time.perf_counter()
    weights = affinity(ids, far)
    made = time.perf_counter() - started
    requests = []
    for seed in range(trajectories):
        order = np.random.default_rng(seed).permutation(len(labels))
        picks = np.concatenate([order[labels[order] == c][:PER_CLASS] for c in range(classes)])
        requests.append(label_sources(picks, labels[picks], classes, ALPHA, TOL))
    if side == "scipy":
        work = scipy_side(weights, requests)
    elif side == "one by one":
        work = lambda: [solve(weights, [request])[0] for request in requests]  # noqa: E731
    else:
        work = lambda: solve(weights, requests)  # noqa: E731
    solve(weights, [label_sources(picks[:1], picks[:1] * 0, 1, ALPHA, iterations=1)])  # compiles
    before, started = start_clock()
    found = work()
    figures = stop_clock(before, started)
    residual = max(largest_residual(weights, request, z) for request, z in zip(requests[:2], found[:2], strict=True))
    return {**figures, "seconds_affinity": made, "edges": len(weights.values), "residual": residual}


def sparse(weights: Any) -> Any:
    """I - alpha W, float64."""
    from scipy.sparse import csr_matrix, identity

    count = weights.count
    w = csr_matrix((weights.values.astype(np.float64), weights.columns, weights.starts), shape=(count, count))
    return (identity(count) - ALPHA * w).tocsr()


def scipy_side(weights: Any, requests: Any) -> Any:
    from scipy.sparse.linalg import cg

    system = sparse(weights)

    def work() -> list[np.ndarray]:
        found = []
        for request in requests:
            z = np.empty((weights.count, request.count), np.float32)
            for column in range(request.count):
                y = np.zeros(weights.count)
                own = request.columns == column
                y[request.nodes[own]] = request.values[own]
                z[:, column] = cg(system, y, rtol=TOL, atol=0.0)[0]
            found.append(z)
        return found

    return work


def largest_residual(weights: Any, request: Any, z: np.ndarray) -> float:
    y = np.zeros(z.shape)
    y[request.nodes, request.columns] = request.values
    left = y - sparse(weights) @ z.astype(np.float64)
    return float((np.linalg.norm(left, axis=0) / np.linalg.norm(y, axis=0)).max())


def in_subprocess(*cell: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.label_propagation", "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, default=256, help="principal components, at most 256")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_propagation.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        what, folder, *rest = json.loads(args.cell)
        figures = build_graph(Path(folder), *rest) if what == "graph" else measure(Path(folder), what, *rest)
        print(json.dumps(figures))
        return
    embeddings(1, 1)  # says at once when there are none
    graphs, cells = [], []
    for count in [3000] if args.quick else [50_000, 100_000]:
        with tempfile.TemporaryDirectory() as folder:
            graphs.append({"n": count, "k": NEIGHBORS, **in_subprocess("graph", folder, count, args.width)})
            print(json.dumps(graphs[-1]), flush=True)
            for classes in (10, 100):
                cells += compare(folder, count, classes)
    settings = {"alpha": ALPHA, "tol": TOL, "k": NEIGHBORS, "labels_per_class": PER_CLASS, "width": args.width}
    write_json(args.out, {"machine": machine(), "settings": settings, "graphs": graphs, "cells": cells})


def compare(folder: str, count: int, classes: int) -> list[dict[str, Any]]:
    """The cells of one graph and number of classes; `ratio`: seconds per trajectory over those of 16 fused ones."""
    cells = []
    for side, trajectories in (("fused", 16), ("fused", 1), ("one by one", 16), ("scipy", 1)):
        figures = in_subprocess(side, folder, classes, trajectories)
        cell = {"n": count, "classes": classes, "side": side, "trajectories": trajectories, **figures}
        if "seconds" in cell:
            cell["seconds_per_trajectory"] = cell["seconds"] / trajectories
            first = (cells or [cell])[0].get("seconds_per_trajectory")
            cell["ratio"] = cell["seconds_per_trajectory"] / first if first else None
        cells.append(cell)
        print(json.dumps(cell), flush=True)
    return cells


if __name__ == "__main__":
    main()
