"""Trajectories by the usual tools or by ray-al without Ray: the other sides of `grid`.

    python -m benchmarks.grid_sides '{"side": "usual", "data": "...npz", "strategy": "badge", "seed": 0, ...}'

Writes one JSON line per round: {"round", "seconds", "accuracy"}; "one process" runs all trajectories and writes one
line. The usual tools are scikit-learn's LogisticRegression
and k-means, and numpy selection code as papers publish it, each in its fast form: distances by products and norms,
BADGE on factors of the gradients. "converged" is the same with fits that give ray-al's predictions.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# The side's fits: type of the features, and tolerance. At scikit-learn's own, probabilities are up to 0.13 off and up
# to 6% of the predictions others than at the minimum; at 1e-7 at most one of 10,000 differs.
FITS = {"usual": (np.float32, 1e-4), "converged": (np.float64, 1e-7)}
ROUGH = 3e-4  # ray-al's `tol` whose answers are nearer the minimum than scikit-learn's by default (benchmarks/fits.py)
MAX_CLUSTERS, MIN_CLUSTER, NEIGHBORS = 500, 5, 20  # TypiClust's own numbers


class State(NamedTuple):
    """What a strategy sees in a round."""

    x: np.ndarray  # (N, d) float32
    labeled: np.ndarray  # ids
    free: np.ndarray  # (N,) bool
    probs: Callable[[], np.ndarray]  # (N, C)
    rng: np.random.Generator


def random(s: State, b: int) -> np.ndarray:
    return s.rng.choice(np.flatnonzero(s.free), b, replace=False)


def entropy(s: State, b: int) -> np.ndarray:
    ids = np.flatnonzero(s.free)
    p = s.probs()[ids]
    return ids[np.argsort((p * np.log(np.maximum(p, 1e-12))).sum(1))[:b]]


def margin(s: State, b: int) -> np.ndarray:
    ids = np.flatnonzero(s.free)
    top = np.partition(s.probs()[ids], -2, axis=1)[:, -2:]
    return ids[np.argsort(top[:, 1] - top[:, 0])[:b]]


def kcenter_greedy(s: State, b: int) -> np.ndarray:
    norms = np.einsum("nd,nd->n", s.x, s.x)
    nearest = np.full(len(s.x), np.inf, np.float32)
    for start in range(0, len(s.labeled), 256):
        centers = s.labeled[start : start + 256]
        nearest = np.minimum(nearest, (norms[:, None] + norms[centers] - 2 * (s.x @ s.x[centers].T)).min(1))
    nearest[~s.free] = -np.inf
    picks = []
    for _ in range(b):
        pick = int(nearest.argmax())
        picks.append(pick)
        np.minimum(nearest, norms + norms[pick] - 2 * (s.x @ s.x[pick]), out=nearest)
        nearest[pick] = -np.inf
    return np.array(picks)


def badge(s: State, b: int) -> np.ndarray:
    """k-means++ on gradients (p - onehot) x [x, 1], whose products are products of factors: no (N, C d) array."""
    ids = np.flatnonzero(s.free)
    x, a = s.x[ids], s.probs()[ids].astype(np.float32)
    a[np.arange(len(a)), a.argmax(1)] -= 1
    norms = np.einsum("nc,nc->n", a, a) * (np.einsum("nd,nd->n", x, x) + 1)
    picks = [int(norms.argmax())]
    nearest = np.full(len(ids), np.inf, np.float32)
    while len(picks) < b:
        last = picks[-1]
        squares = norms + norms[last] - 2 * (a @ a[last]) * (x @ x[last] + 1)
        nearest = np.minimum(nearest, np.maximum(squares, 0))
        nearest[picks] = 0
        weights = np.cumsum(nearest, dtype=np.float64)
        picks.append(int(np.searchsorted(weights, s.rng.random() * weights[-1], side="right")))
    return ids[picks]


def typiclust(s: State, b: int) -> np.ndarray:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors

    count, seed = min(len(s.labeled) + b, MAX_CLUSTERS), int(s.rng.integers(2**31))
    # The authors' choice between the two, and their batch size.
    model = (
        KMeans(count, random_state=seed) if count <= 50 else MiniBatchKMeans(count, batch_size=5000, random_state=seed)
    )
    cluster = model.fit_predict(s.x)
    sizes = np.bincount(cluster, minlength=count)
    covered = np.bincount(cluster[s.labeled], minlength=count)
    order = [c for c in np.lexsort((-sizes, covered)) if sizes[c] > MIN_CLUSTER]
    members = {c: np.flatnonzero((cluster == c) & s.free) for c in order}
    picks: list[int] = []
    while len(picks) < b:
        for c in order:
            ids = members[c]
            if len(picks) == b or not len(ids):
                continue
            if len(ids) > 1:
                near = min(NEIGHBORS, len(ids) - 1) + 1
                distances = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(s.x[ids]).kneighbors(s.x[ids])[0]
                best = int(distances[:, 1:].mean(1).argmin())
            else:
                best = 0
            picks.append(int(ids[best]))
            members[c] = np.delete(ids, best)
    return np.array(picks)


STRATEGIES = {f.__name__: f for f in (random, entropy, margin, kcenter_greedy, badge, typiclust)}


def usual_rounds(task: dict[str, Any]) -> Iterator[float]:
    """Test accuracy of each round of a trajectory by the usual tools, from the same initial ids as ray-al's."""
    from sklearn.linear_model import LogisticRegression

    from ray_al.core.trajectory import Protocol, initial_ids

    with np.load(task["data"]) as file:
        x, x_test = (file[f"{split}_features"].astype(np.float32) for split in ("train", "test"))
        y, y_test = file["train_labels"], file["test_labels"]
    protocol, (kind, tol) = Protocol(**task["protocol"]), FITS[task["side"]]
    classes, rng = int(y.max()) + 1, np.random.default_rng(task["seed"])
    labeled = initial_ids(y, classes, protocol, task["seed"])
    free = np.ones(len(x), bool)
    for index in range(protocol.rounds):
        free[labeled] = False
        model = LogisticRegression(C=1.0, max_iter=10_000, tol=tol).fit(x[labeled].astype(kind), y[labeled])
        model.coef_, model.intercept_ = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
        yield float((model.predict(x_test) == y_test).mean())
        if index + 1 < protocol.rounds:
            state = State(x, labeled, free, lambda model=model: model.predict_proba(x), rng)
            labeled = np.r_[labeled, STRATEGIES[task["strategy"]](state, protocol.batch)]


def own_rounds(task: dict[str, Any]) -> Iterator[float]:
    """The same by ray-al in this process alone, artifacts on the storage that all such processes share."""
    from ray_al.assemble import run_locally
    from ray_al.config import parse_sweep
    from ray_al.storage import Storage

    axes = {
        "dataset": [Path(task["data"]).stem],
        "learner": ["logreg"],
        "strategy": [task["strategy"]],
        "seed": [task["seed"]],
    }
    raw = {"name": "grid", "storage": task["storage"], "axes": axes, "protocol": task["protocol"]}
    sweep = parse_sweep(raw)
    for record in run_locally(sweep, sweep.trajectories[0], Storage.open(task["storage"])):
        yield record.accuracy


def one_process(task: dict[str, Any]) -> dict[str, Any]:
    """All trajectories in threads of this process, through one pool scorer: what a run's arithmetic alone takes."""
    from concurrent.futures import ThreadPoolExecutor

    from ray_al.assemble import LocalReader, assemble, materialize
    from ray_al.config import parse_sweep
    from ray_al.core.trajectory import run_trajectory
    from ray_al.data.artifacts import ArtifactStore
    from ray_al.experiment import TrajectoryConfig
    from ray_al.services.pool_scorer import PoolScorer
    from ray_al.storage import Storage

    axes = {"dataset": [Path(task["data"]).stem], "learner": ["logreg"]}
    axes |= {"strategy": task["strategies"], "seed": task["seeds"]}
    raw = {"name": "grid", "storage": task["storage"], "axes": axes, "protocol": task["protocol"]}
    sweep = parse_sweep(raw)
    store = ArtifactStore(Storage.open(task["storage"]))
    started = time.perf_counter()
    (keys,) = materialize(sweep, store, sweep.trajectories).values()
    reader = LocalReader(store, keys)
    scorer, labels = PoolScorer(reader), reader.labels()

    def curve(config: TrajectoryConfig) -> list[float]:
        return [r.accuracy for r in run_trajectory(assemble(config, keys, reader, labels, scorer, None))]

    with ThreadPoolExecutor(task["at_once"]) as threads:
        curves = list(threads.map(curve, sweep.trajectories))
    wall = time.perf_counter() - started
    accuracy: dict[str, list[list[float]]] = {strategy: [] for strategy in task["strategies"]}
    for config, found in zip(sweep.trajectories, curves, strict=True):
        accuracy[config.name.strategy].append(found)
    return {"wall_seconds": wall, "cpu_seconds": time.process_time(), "accuracy": accuracy}


def main() -> None:
    task = json.loads(sys.argv[1])
    if task["side"] == "one process":
        print(json.dumps(one_process(task)))
        return
    started = time.perf_counter()
    rounds = own_rounds if task["side"] == "own" else usual_rounds
    for index, accuracy in enumerate(rounds(task)):
        now = time.perf_counter()
        print(json.dumps({"round": index, "seconds": now - started, "accuracy": accuracy}), flush=True)
        started = now


if __name__ == "__main__":
    main()
