"""One-shot draws with an SVC and its grid search, against scikit-learn's GridSearchCV over SVC.

    python -m benchmarks.svc             # 20 draws at each budget
    python -m benchmarks.svc --quick     # 3 draws: does it run?

MNIST's digits 0, 3 and 9 (RAY_AL_DATA), as pixels and in 3 principal components, uniform draws; 20 candidates,
stratified folds (3, or as many as the smallest class has members), then predictions of all 2,999 test items. Both sides
get the same rows in one process, in turns, by one BLAS thread. Draws that lack two members of a class are left out:
neither side has a grid search there. Seconds are means over draws.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, write_json
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import NONE
from ray_al.core.seeds import stream

DIGITS, BUDGETS = (0, 3, 9), (20, 80, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "svc.json")
    args = parser.parse_args()
    about, rows = machine(), list(compare(3 if args.quick else args.draws))
    write_json(args.out, {"machine": about, "digits": DIGITS, "rows": rows})


class Arrays:
    """A SpaceReader of arrays in memory."""

    def __init__(self, arrays: Mapping[tuple[str, str], np.ndarray]) -> None:
        self._arrays = arrays

    def read(self, space: str, split: str) -> np.ndarray:
        return self._arrays[space, split]


def spaces() -> tuple[Pool, np.ndarray]:
    """Pixels in 0..1 and principal components of three digits, and the pool's labels as 0, 1, 2."""
    data = np.load(Path(os.environ["RAY_AL_DATA"]) / "mnist.npz", allow_pickle=False)
    arrays: dict[tuple[str, str], np.ndarray] = {}
    labels = np.empty(0, np.int64)
    for split, name in (("pool", "train"), ("test", "test")):
        kept = np.isin(data[f"{name}_labels"], DIGITS)
        arrays["pixels", split] = (data[f"{name}_images"][kept].reshape(kept.sum(), -1) / 255).astype(np.float32)
        if split == "pool":
            labels = np.searchsorted(DIGITS, data[f"{name}_labels"][kept])
    mean = arrays["pixels", "pool"].mean(0)
    spread = np.linalg.eigh(np.cov(arrays["pixels", "pool"].T))[1][:, -3:].astype(np.float32)
    for split in ("pool", "test"):
        arrays["pca3", split] = (arrays["pixels", split] - mean) @ spread
    sizes = [len(arrays["pixels", split]) for split in ("pool", "test")]
    return Pool(*sizes, len(DIGITS), Arrays(arrays), ("pixels", "pca3")), labels


def compare(draws: int) -> Iterator[dict[str, Any]]:
    from threadpoolctl import threadpool_limits

    pool, labels = spaces()
    with threadpool_limits(1, "blas"):
        for space in pool.spaces:
            for budget in BUDGETS:
                found = [_draw(pool, labels, space, budget, seed) for seed in range(draws + 1)]
                yield _row(space, budget, [draw for draw in found[1:] if draw])  # the first one warms both up


def _draw(pool: Pool, labels: np.ndarray, space: str, budget: int, seed: int) -> dict[str, Any] | None:
    """Seconds of fit and prediction on both sides, and whether they agree; None for a draw without a grid search."""
    ids = stream(seed, "select", budget).permutation(pool.size)[:budget]
    folds = min(3, int(np.bincount(labels[ids], minlength=pool.classes).min()))
    if folds < 2:
        return None
    sides = [_scikit_learn, _ours] if seed % 2 else [_ours, _scikit_learn]
    found = {side.__name__.strip("_"): side(pool, labels, space, ids, folds) for side in sides}
    ours, theirs = found["ours"], found["scikit_learn"]
    return {
        "ours": ours["seconds"],
        "scikit_learn": theirs["seconds"],
        "same_choice": ours["choice"] == theirs["choice"],
        "same_predictions": bool((ours["classes"] == theirs["classes"]).all()),
    }


def _scikit_learn(pool: Pool, labels: np.ndarray, space: str, ids: np.ndarray, folds: int) -> dict[str, Any]:
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    from ray_al.learners.svc_search import GRID_C, GRID_GAMMA

    grid = [{"kernel": ["linear"], "C": GRID_C}, {"kernel": ["rbf"], "C": GRID_C, "gamma": GRID_GAMMA}]
    rows, test = pool.inputs(space, ids).astype(float), pool.inputs(space, split="test")
    started = time.perf_counter()
    search = GridSearchCV(SVC(), grid, cv=folds).fit(rows, labels[ids])
    fitted = time.perf_counter()
    classes = search.predict(test.astype(float))
    seconds = fitted - started, time.perf_counter() - fitted
    best = search.best_params_
    return {
        "choice": (best["kernel"], best["C"], search.best_estimator_._gamma),
        "classes": classes,
        "seconds": seconds,
    }


def _ours(pool: Pool, labels: np.ndarray, space: str, ids: np.ndarray, folds: int) -> dict[str, Any]:
    from ray_al.learners.svc import Svc, SvcModel

    started = time.perf_counter()
    model = Svc(space=space).fit(LabeledSet(ids, labels[ids]), NONE, pool, stream(0, "init-weights"))
    fitted = time.perf_counter()
    classes = model.output("probs", split="test").argmax(1)
    seconds = fitted - started, time.perf_counter() - fitted
    assert isinstance(model, SvcModel)
    assert model.fitted is not None
    return {"choice": (model.fitted.kernel, model.fitted.c, model.fitted.gamma), "classes": classes, "seconds": seconds}


def _row(space: str, budget: int, draws: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = {side: np.array([draw[side] for draw in draws]).mean(0) for side in ("ours", "scikit_learn")}
    whole = {side: float(parts.sum()) for side, parts in seconds.items()}
    return {
        "space": space,
        "budget": budget,
        "draws": len(draws),
        **{f"{side}_{part}_seconds": round(float(value), 5) for side, parts in seconds.items()
           for part, value in zip(("fit", "predict"), parts, strict=True)},
        "ratio": round(whole["scikit_learn"] / whole["ours"], 2),
        "same_choice": sum(draw["same_choice"] for draw in draws),
        "same_predictions": sum(draw["same_predictions"] for draw in draws),
    }  # fmt: skip


if __name__ == "__main__":
    main()
