"""What `benchmarks.rethinking_gpu` found, as the results of a sweep, so that `ray-al reproduce` reads it as any other.

    python -m benchmarks.rethinking_results runs                   # writes runs/rethinking-gpu
    ray-al reproduce rethinking --storage runs

The record has accuracies, picks and the last epoch of every training; what it lacks (other metrics, the ids of the
first cycle) is empty.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rethinking_gpu import RESULTS
from ray_al.core.round import RoundRecord
from ray_al.results.compaction import compact
from ray_al.results.epochs import write_epochs
from ray_al.results.ledger import Ledger
from ray_al.results.schema import TrajectoryName
from ray_al.storage import Storage

SWEEP = "rethinking-gpu"
LABELS = {"random": "random", "entropy": "uncertainty", "kcenter_greedy": "coreset"}
NONE = np.empty(0, np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage")
    parser.add_argument("--record", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not args.record.is_file():
        how = "python -m benchmarks.rethinking_gpu run cifar10.npz"
        parser.exit(2, f"error: {args.record} is not there: `{how}` writes it, on a machine with a GPU\n")
    print(convert(json.loads(args.record.read_text()), Storage.open(args.storage)))


def convert(record: Mapping[str, Any], storage: Storage) -> str:
    """Write the folder of the sweep, anew; returns what was written."""
    storage.delete(SWEEP)
    folder, cells = storage.child(SWEEP), record["cells"]
    seeds = sorted({int(name.split("/")[1]) for name in cells})
    folder.write("sweep.json", json.dumps(sweep_of(record["settings"], seeds), indent=1).encode())
    circumstances = {
        "device": record["device"], "host": "", "peak_mb": math.nan,
        "versions": json.dumps(record["machine"]["versions"]),
    }  # fmt: skip
    names = []
    for setting in ("base", "PRE+SEMI"):
        for strategy in ("random", record["settings"]["strategy"]):
            for seed in seeds:
                rounds = rounds_of(cells, setting, strategy, seed)
                name = TrajectoryName(
                    f"gpu-{setting}-{strategy}-{seed}", SWEEP, "cifar10", setting, LABELS[strategy],
                    f"{record['settings']['batch']} a cycle", seed,
                )  # fmt: skip
                ledger = Ledger(folder, name)
                for number, (cell, asked) in enumerate(rounds):
                    ledger.append(_record(number, cell, asked), circumstances)
                    write_epochs(folder, name, number, [cell["last"]])
                if rounds:
                    ledger.finish()
                    names.append(name)
    compact(folder, names)
    return f"{len(names)} trajectories in {folder.uri}"


def sweep_of(settings: Mapping[str, Any], seeds: list[int]) -> dict[str, Any]:
    """The sweep file that says what was done. The length of SUP is also that of base."""
    base = {"name": "convnet13", "epochs": settings["sup_epochs"], "precision": settings["precision"], "label": "base"}
    both = {
        **base, "label": "PRE+SEMI", "epochs": settings["epochs"], "sup_epochs": settings["sup_epochs"], "semi": True,
        "pretrain": "deepcluster", "pretrain_epochs": settings["pre_epochs"],
    }  # fmt: skip
    other = settings["strategy"]
    axes = {
        "dataset": ["cifar10"],
        "learner": [base, both],
        "strategy": ["random", {"name": other, "label": LABELS[other]}],
        "seed": seeds,
    }
    batch = settings["batch"]
    return {
        "name": SWEEP,
        "axes": axes,
        "protocol": [{"initial": batch, "balanced": True, "batch": batch, "rounds": 5}],
    }


def rounds_of(cells: Mapping[str, Any], setting: str, strategy: str, seed: int) -> list[tuple[Mapping[str, Any], Any]]:
    """The trainings of one trajectory in order, as far as they were done, with what was asked for before each."""
    found: list[tuple[Mapping[str, Any], Any]] = []
    while (cell := cells.get(f"{setting}/{seed}/{strategy if found else 'all'}/{len(found)}")) is not None:
        found.append((cell, np.array(found[-1][0]["picks"][strategy]) if found else NONE))
    return found


def _record(number: int, cell: Mapping[str, Any], asked: np.ndarray) -> RoundRecord:
    return RoundRecord(
        number, cell["labels"], cell["labels"], 0, cell["accuracy"], math.nan, math.nan, math.nan, math.nan,
        asked, np.empty(0), NONE, seconds_fit=cell["seconds"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
