"""A fit of logistic regression: its time, and how far its answer is from the minimum, against scikit-learn's.

On EfficientNet-Lite0 features (256 components) of CIFAR-10 and Tiny ImageNet (RAY_AL_DATA), labels drawn at random,
l2 = 1 on the summed log-loss, one thread each. Errors are of the probabilities of all test rows, against a fit to
tolerance 1e-9.

    python -m benchmarks.fits             # about two minutes
    python -m benchmarks.fits --quick     # does it run?
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from benchmarks.grid_sides import ROUGH
from benchmarks.machine import machine, write_json

LABELS = {"cifar10": (100, 200, 500, 1000), "tinyimagenet": (200, 400, 1000, 2000)}
EXACT = 1e-9
TIMES = 5  # the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fits.json")
    args = parser.parse_args()
    rows = []
    for name, counts in LABELS.items():
        for row in compare(name, counts[:1] if args.quick else counts):
            print(row, flush=True)
            rows.append(row)
    write_json(args.out, {"machine": machine(), "rows": rows}, show=False)


def compare(name: str, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    with np.load(Path(os.environ["RAY_AL_DATA"], f"{name}_effnetlite0_pca256.npz"), allow_pickle=False) as data:
        x, y, x_test = data["train_features"], data["train_labels"].astype(np.int64), data["test_features"]
    classes, order = int(y.max()) + 1, np.random.default_rng(0).permutation(len(x))
    for count in counts:
        ids = order[:count]
        rows, labels, test = x[ids].astype(np.float32), y[ids], x_test.astype(np.float64)
        exact, _ = timed(partial(ours, rows, labels, classes, EXACT))
        truth, least = softmax(logits(exact, test), 1), objective(exact, rows, labels)
        for side, fit in sides(rows, labels, classes).items():
            head, seconds = timed(fit)
            probs = softmax(logits(head, test), 1)
            yield {
                "features": name,
                "labels": count,
                "fit": side,
                "ms": 1000 * seconds,
                "largest error": float(np.abs(probs - truth).max()),
                "mean total variation": float(np.abs(probs - truth).sum(1).mean() / 2),
                "other predictions": f"{100 * (probs.argmax(1) != truth.argmax(1)).mean():.2f}%",
                "objective above minimum": objective(head, rows, labels) / least - 1,
            }


def sides(x: np.ndarray, y: np.ndarray, classes: int) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    return {
        "scikit-learn, tol 1e-4 (default)": lambda: sklearns(x, y, classes, 1e-4),
        "scikit-learn, float64, tol 1e-7": lambda: sklearns(x.astype(np.float64), y, classes, 1e-7),
        f"ray-al, tol {ROUGH:g}": lambda: ours(x, y, classes, ROUGH),
        "ray-al, tol 1e-7 (default)": lambda: ours(x, y, classes, 1e-7),
    }


def ours(x: np.ndarray, y: np.ndarray, classes: int, tol: float) -> tuple[np.ndarray, np.ndarray]:
    from ray_al.kernels.logistic import fit_logistic

    (head,) = fit_logistic([(x, y)], classes, 1.0, tol)
    return head.weights, head.bias


def sklearns(x: np.ndarray, y: np.ndarray, classes: int, tol: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(action="ignore"):  # so many classes might be numbers, it thinks
        model = LogisticRegression(C=1.0, max_iter=10_000, tol=tol).fit(x, y)
    weights, bias = np.zeros((classes, x.shape[1])), np.full(classes, -1e4)  # a class without labels is not predicted
    weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    """What a fit gives, and the median of its seconds after a first call."""
    found, seconds = fit(), []
    for _ in range(TIMES):
        started = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - started)
    return found, float(np.median(seconds))


def logits(head: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    return x @ head[0].T.astype(np.float64) + head[1]


def objective(head: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    losses = log_softmax(logits(head, x.astype(np.float64)), 1)[np.arange(len(y)), y]
    return float(np.square(head[0], dtype=np.float64).sum() / 2 - losses.sum())


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
