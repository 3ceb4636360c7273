"""One pass for many trajectories: fused scoring against one by one, and against the usual torch code.

    python -m benchmarks.fused            # 16 trajectories; 100k and 1M rows of 512, 10 and 100 classes
    python -m benchmarks.fused --quick    # 20k rows: does it run?

Each trajectory asks for its 100 most uncertain items by entropy under a linear head of its own. "fused": all ask the
pool scorer at the same time; "one by one": the same calls, each after the other; "usual": softmax, entropy and topk in
torch, one trajectory after the other, on all cores. The machine's memory bandwidth is that of reading the rows in the
kernels' own threads. Answers are compared bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine, write_json
from ray_al.core.linear import LinearHead
from ray_al.kernels import blocks
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.shard import Shard

TRAJECTORIES, TOP, REPEATS = 16, 100, 5


class Reader:
    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def read(self, space: str, split: str) -> np.ndarray:
        return self.x


def make_rows(n: int, d: int, dtype: str) -> np.ndarray:
    draw = torch.Generator().manual_seed(0)
    return torch.randn((n, d), generator=draw).to(getattr(torch, dtype)).numpy()


def seconds(work: Callable[[], Any]) -> float:
    """Median of some runs after a first one."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def bandwidth(x: np.ndarray) -> float:
    """Bytes a second at which the kernels' threads read x."""
    rows = blocks.block_rows(x.shape[1])
    raw = x.view(np.uint8).reshape(len(x), -1)

    def work(start: int, stop: int) -> int:
        part = raw[start:stop].reshape(-1)
        return int(part[: len(part) // 8 * 8].view(np.int64).max())

    return x.nbytes / seconds(lambda: blocks.map_blocks(work, len(x), rows))


def measure(n: int, d: int, classes: int, dtype: str) -> dict[str, Any]:
    x, rng = make_rows(n, d, dtype), np.random.default_rng(1)
    weights = [(0.1 * rng.standard_normal((classes, d))).astype(np.float32) for _ in range(TRAJECTORIES)]
    heads = [LinearHead("x", w, np.zeros(classes, np.float32)) for w in weights]
    labeled = [rng.permutation(n)[:200] for _ in range(TRAJECTORIES)]
    read: list[int] = []
    reader = Reader(x)
    scorer = PoolScorer(reader, Shard(reader, observe=lambda waited, size: read.append(size)))
    threads = ThreadPoolExecutor(TRAJECTORIES)

    def one(i: int) -> tuple[np.ndarray, np.ndarray]:
        return scorer.linear_top(heads[i], "entropy", TOP, labeled[i], i)

    def usual() -> None:
        rows = torch.from_numpy(x)
        for i in range(TRAJECTORIES):
            w = torch.from_numpy(weights[i])
            # As much at a time as fits beside the rows: a million probabilities of 100 classes are 400 MB.
            logits = torch.cat([part.float() @ w.T for part in rows.split(1 << 18)])
            probs = torch.softmax(logits, 1)
            entropy = -(probs * torch.log(probs + 1e-12)).sum(1)
            entropy[torch.from_numpy(labeled[i])] = -1
            torch.topk(entropy, TOP)

    alone = [one(i) for i in range(TRAJECTORIES)]
    together = list(threads.map(one, range(TRAJECTORIES)))
    equal = all(
        np.array_equal(a, b)
        for left, right in zip(alone, together, strict=True)
        for a, b in zip(left, right, strict=True)
    )
    speed = bandwidth(x)
    one_by_one = seconds(lambda: [one(i) for i in range(TRAJECTORIES)])
    read.clear()
    fused = seconds(lambda: list(threads.map(one, range(TRAJECTORIES))))
    bytes_read = sum(read) / (REPEATS + 1)
    torch.set_num_threads(blocks.threads())
    by_torch = seconds(usual)
    return {
        "n": n, "d": d, "classes": classes, "dtype": dtype, "bit_identical": equal,
        "requests_per_second": {
            "fused": TRAJECTORIES / fused, "one by one": TRAJECTORIES / one_by_one, "usual": TRAJECTORIES / by_torch,
        },
        "bytes_read": {"fused": bytes_read, "one by one": TRAJECTORIES * x.nbytes},
        "to_one_by_one": one_by_one / fused, "to_usual": by_torch / fused,
        "bandwidth": speed,
        "bandwidth_used": bytes_read / fused / speed,  # of what is really read
        "bandwidth_saved": TRAJECTORIES * x.nbytes / fused / speed,  # had every trajectory read the rows itself
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fused.json")
    args = parser.parse_args()
    found = machine()
    cells = []
    for n in (20_000,) if args.quick else (100_000, 1_000_000):
        for classes in (10, 100):
            for dtype in ("float32", "float16"):
                cells.append(measure(n, 512, classes, dtype))
                # After each cell: a run that is stopped leaves what it measured.
                write_json(args.out, {"machine": found, "trajectories": TRAJECTORIES, "top": TOP, "cells": cells})


if __name__ == "__main__":
    main()
