"""kNN graphs: exact search against HNSW and IVF, time and recall.

    python -m benchmarks.neighbors              # 100k x 64, k = 50
    python -m benchmarks.neighbors --large      # 1 M x 64 as well, on a sample of the rows, projected to all
    python -m benchmarks.neighbors --quick      # 4k x 16: does it run?

On Tiny ImageNet's embeddings (RAY_AL_DATA), tiled with noise beyond 100,000 rows. Each index runs in a process of its
own. `recall` is the share of a row's true neighbors that the index finds, over 2,000 rows. faiss's own flat index is
shown beside.
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

from benchmarks.embeddings import embeddings
from benchmarks.label_propagation import start_clock, stop_clock
from benchmarks.machine import machine, write_json

K, SAMPLE = 50, 2000
SIDES = ("flat", "hnsw", "ivf", "faiss flat")


def measure(side: str, count: int, width: int, rows: int) -> dict[str, Any]:
    """Seconds to build, seconds for the neighbors of `rows` items, and recall; `projected_seconds` for all."""
    from ray_al.kernels.neighbors import build_index, neighbors_of

    x, _ = embeddings(count, width)
    small = build_index(x[:2000], "flat" if side == "faiss flat" else side)
    neighbors_of(small, x[:2000], np.arange(600), 5)  # compiles
    asked = np.linspace(0, count - 1, rows).astype(np.int64)
    before, started = start_clock()
    index = FaissFlat(x) if side == "faiss flat" else build_index(x, side)
    built = time.perf_counter() - started
    found = np.concatenate([neighbors_of(index, x, part, K)[0] for part in np.array_split(asked, -(-rows // 8192))])
    figures = stop_clock(before, started)
    figures["seconds_build"], figures["seconds_search"] = built, figures["seconds"] - built
    if rows < count:
        figures["projected_seconds"] = built + figures["seconds_search"] * count / rows
    sample = np.linspace(0, rows - 1, min(SAMPLE, rows)).astype(np.int64)
    truth = neighbors_of(build_index(x), x, asked[sample], K)[0]
    hits = [np.isin(a, b).mean() for a, b in zip(truth, found[sample], strict=True)]
    return {**figures, "recall": float(np.mean(hits))}


class FaissFlat:
    """faiss's exhaustive index, all threads, float32 copy, its float32 order taken as it is."""

    def __init__(self, x: np.ndarray) -> None:
        import faiss

        self.index = faiss.IndexFlatL2(x.shape[1])
        self.index.add(x.astype(np.float32))
        self.count = len(x)

    def search(self, queries: np.ndarray, k: int, free: None = None) -> tuple[np.ndarray, np.ndarray]:
        squares, ids = self.index.search(queries, k)
        return ids, np.maximum(squares.astype(np.float64), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "neighbors.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(*json.loads(args.cell))))
        return
    embeddings(1, 1)  # says at once when there are none
    sizes = [(4000, 16, 4000)] if args.quick else [(100_000, 64, 100_000)]
    sizes += [(1_000_000, 64, 20_000)] if args.large else []
    cells = []
    for count, width, rows in sizes:
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.neighbors", "--cell", json.dumps([side, count, width, rows])]
            done = subprocess.run(command, capture_output=True, text=True)
            figures = {"skipped": (done.stderr.strip().splitlines() or [""])[-1]} if done.returncode else None
            figures = figures or json.loads(done.stdout.splitlines()[-1])
            cells.append({"index": side, "n": count, "d": width, "k": K, "rows_searched": rows, **figures})
            print(json.dumps(cells[-1]), flush=True)
    write_json(args.out, {"machine": machine(), "cells": cells})


if __name__ == "__main__":
    main()
