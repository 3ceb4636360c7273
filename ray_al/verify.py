"""Run finished trajectories again and compare: the proof that a record can be reproduced."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from rich.console import Console

from ray_al.assemble import run_locally
from ray_al.config import parse_sweep
from ray_al.core.round import RoundRecord
from ray_al.results.dataset import index, read_sweep
from ray_al.results.schema import to_records
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

EXACT = (
    "labels", "n_labeled", "n_synthetic", "accuracy", "balanced_accuracy", "macro_f1", "nll", "ece",
    "asked_ids", "asked_scores", "class_counts", "assumed_ids", "assumed_labels",
)  # fmt: skip


def verify_sweep(folder: str, sample: int, seed: int, console: Console) -> list[str]:
    """Run `sample` finished trajectories again without Ray; returns what differed, printing as it goes.

    Raises:
        ConfigError: the folder has no finished trajectory, or its sweep file is no longer right.
        DamagedFile: a file of the folder cannot be read.
    """
    storage = Storage.open(folder)
    if not storage.exists("sweep.json"):
        raise ConfigError([f"{folder!r} holds no sweep.json, so what was run is not known"])
    sweep = parse_sweep(storage.read_json("sweep.json"))
    held = index(storage).done
    done = [t for t in sweep.trajectories if t.id in held]
    if not done:
        raise ConfigError(
            [f"{folder!r} has no finished trajectory of its sweep (did the data or a method's version change?)"]
        )
    chosen = np.random.default_rng(seed).permutation(len(done))[:sample]
    table = read_sweep(storage)
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ray-al-verify-") as scratch:
        for position in sorted(chosen):
            config = done[position]
            name = config.name
            recorded = to_records(table.filter(pc.equal(table["trajectory_id"], config.id)))
            again = list(run_locally(sweep, config, Storage.open(Path(scratch))))
            wrong = differences(recorded, again)
            verdict = f"differs: {wrong[0]}" if wrong else f"{len(again)} rounds equal, ids and metrics"
            text = f"{name.strategy} · {name.dataset} · {name.learner} · seed {name.seed}: {verdict}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            found += wrong
        shutil.rmtree(Path(scratch) / "artifacts", ignore_errors=True)
    return found


def differences(recorded: Sequence[RoundRecord], again: Sequence[RoundRecord]) -> list[str]:
    """Every column of every round that is not exactly equal."""
    found = [] if len(recorded) == len(again) else [f"{len(recorded)} rounds on record, {len(again)} now"]
    for old, new in zip(recorded, again, strict=False):
        for column in EXACT:
            before, after = getattr(old, column), getattr(new, column)
            if not np.array_equal(before, after, equal_nan=isinstance(before, float)):
                found.append(f"round {old.round}, {column}: {before} on record, {after} now")
    return found
