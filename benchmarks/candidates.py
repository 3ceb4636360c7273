"""What a round costs whose candidates are the neighbors of what is labeled, against a round over the whole pool.

    python -m benchmarks.candidates            # 100,000 and 1,000,000 x 256
    python -m benchmarks.candidates --quick    # 10,000 x 64: does it run?

Trajectories run in this process, one after the other, with the code that a cluster's services run: 8 rounds of 100
labels, logistic regression, real embeddings (RAY_AL_DATA). `round s` is the median time of selection over the rounds
after the second, when indexes are built and a pass has warmed up; `first s` what the first selection takes more,
building included.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import embeddings
from benchmarks.machine import machine, write_json

STRATEGIES = ("entropy", "badge", "kcenter_greedy")
LIMITS = (None, "flat", "ivf")  # the whole pool; neighbors by an exact or an approximate index
TEST, ROUNDS, LABELS = 2000, 8, 100


def cells(rows: int, width: int) -> list[dict[str, Any]]:
    """A cell per strategy and way to restrict it."""
    from ray_al.assemble import run_locally
    from ray_al.config import parse_sweep
    from ray_al.storage import Storage

    x, labels = embeddings(rows + TEST, width)
    with tempfile.TemporaryDirectory() as folder:
        names = {"features": x[:rows], "labels": labels[:rows], "test_features": x[rows:], "test_labels": labels[rows:]}
        for name, array in names.items():
            np.save(Path(folder, f"{name}.npy"), array)
        found = []
        for index in LIMITS:
            limit = {"candidates": {"name": "seals", "k": 100, "index": index}} if index else {}
            sweep = parse_sweep(
                {
                    "name": "candidates",
                    "storage": folder,
                    "axes": {
                        "dataset": [{"name": "arrays", **{name: str(Path(folder, f"{name}.npy")) for name in names}}],
                        "learner": ["logreg"],
                        "strategy": [{"name": name, **limit} for name in STRATEGIES],
                        "seed": 1,
                    },
                    "protocol": {"initial": 200, "balanced": True, "batch": LABELS, "rounds": ROUNDS},
                }
            )
            for strategy, config in zip(STRATEGIES, sweep.trajectories, strict=True):
                records = list(run_locally(sweep, config, Storage.open(folder)))
                first, *later = [record.seconds_select for record in records[1:]]
                usual = float(np.median(later[1:]))
                found.append(
                    {
                        "rows": rows,
                        "strategy": strategy,
                        "candidates": f"seals, {index}" if index else "all",
                        "round s": round(usual, 4),
                        "first s": round(max(0.0, first - usual), 3),
                        "accuracy": round(records[-1].accuracy, 4),
                    }
                )
                print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "candidates.json")
    args = parser.parse_args()
    found = machine()
    sizes = [(10_000, 64)] if args.quick else [(100_000, 256), (1_000_000, 256)]
    rows = [cell for size in sizes for cell in cells(*size)]
    write_json(args.out, {"machine": found, "rounds": ROUNDS, "labels a round": LABELS, "cells": rows}, show=False)


if __name__ == "__main__":
    main()
