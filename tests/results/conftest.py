"""Synthetic sweeps: the results frame of a made-up sweep, without running one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from ray_al.results.schema import to_table

KEYS = ("dataset", "learner", "strategy", "protocol", "seed")


def trajectory_rows(
    accuracy: Sequence[float],
    labels: Sequence[int] | None = None,
    *,
    strategy: str = "random",
    dataset: str = "digits",
    learner: str = "logreg",
    protocol: str = "10+10x9",
    seed: int = 0,
    sweep: str = "demo",
    error: str = "",
    classes: int = 4,
    retries: int = 0,
) -> pd.DataFrame:
    """The rows of one trajectory; a non-empty `error` appends the row of a failed round."""
    labels = [10 * (i + 1) for i in range(len(accuracy))] if labels is None else list(labels)
    names = {"dataset": dataset, "learner": learner, "strategy": strategy, "protocol": protocol, "seed": seed}
    rng = np.random.default_rng(seed)
    asked = np.diff([0, *labels])
    rows = [
        {
            "sweep": sweep,
            "trajectory_id": "-".join(map(str, names.values())),
            **names,
            "round": i,
            "labels": paid,
            "n_labeled": paid,
            "n_synthetic": 0,
            "accuracy": value,
            "balanced_accuracy": value - 0.01,
            "macro_f1": value - 0.02,
            "nll": 1.5 - value,
            "ece": (1 - value) / 3,
            "asked_ids": rng.permutation(max(labels))[: asked[i]].astype(np.int64),
            "asked_scores": np.zeros(0) if strategy == "random" else rng.random(asked[i]),
            "assumed_ids": (),
            "assumed_labels": (),
            "class_counts": np.bincount(np.arange(paid) % classes, minlength=classes),
            "seconds_fit": 0.1 + 0.01 * i,
            "seconds_select": 0.02,
            "seconds_eval": 0.005,
            "peak_mb": 180.0 + i,
            "status": "ok",
            "error": "",
            "retries": retries,
            "host": "node-1",
            "device": "cpu",
            "versions": json.dumps({"ray-al": "0.1.0", "numpy": "2.0"}),
        }
        for i, (value, paid) in enumerate(zip(accuracy, labels, strict=True))
    ]
    if error:
        kept = ("sweep", "trajectory_id", *KEYS, "host", "device", "versions", "peak_mb")
        last = rows[-1] if rows else {"sweep": sweep, "trajectory_id": "-".join(map(str, names.values())), **names}
        lists = dict.fromkeys(("asked_ids", "asked_scores", "class_counts", "assumed_ids", "assumed_labels"), ())
        failure = {"round": len(rows), "status": "failed", "error": error, "retries": retries}
        rows.append({key: last[key] for key in kept if key in last} | lists | failure)
    return to_table(rows).to_pandas()


def sweep_results(
    strengths: Mapping[str, float],
    *,
    datasets: Sequence[str] = ("digits",),
    seeds: int = 5,
    rounds: int = 10,
    full: float | None = None,
    noise: float = 0.008,
) -> pd.DataFrame:
    """A finished sweep; a strategy's strength is how fast its accuracy approaches 0.97."""
    rng = np.random.default_rng(7)
    parts = []
    for dataset in datasets:
        for seed in range(seeds):
            luck = rng.normal(0, noise)
            for strategy, strength in strengths.items():
                steps = np.arange(1, rounds + 1)
                curve = 0.97 - 0.55 * np.exp(-strength * steps) + luck + rng.normal(0, noise, rounds)
                parts.append(trajectory_rows(curve, strategy=strategy, dataset=dataset, seed=seed))
            if full is not None:
                value = full + rng.normal(0, 0.001)
                parts.append(
                    trajectory_rows([value], [1797], strategy="full", protocol="all", dataset=dataset, seed=seed)
                )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def rows() -> Callable[..., pd.DataFrame]:
    return trajectory_rows


@pytest.fixture(scope="session")
def sweep() -> Callable[..., pd.DataFrame]:
    return sweep_results
