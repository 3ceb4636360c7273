"""The real work: active learning on MNIST pixels by ray-al and by scikit-activeml, the same protocol on one machine.

5 strategies x 5 seeds x 20 rounds (10 balanced labels at first, 10 more each round) of multinomial logistic regression,
l2 = 1 on the summed log-loss, on 60,000 x 784 pixels in 0..1; test accuracy on 10,000 images every round. Both sides
start from the same ids. scikit-activeml runs in this process, numpy using the cores as it pleases; ray-al runs as its
users run it, by `ray-al run` on a sweep file.

    RAY_AL_DATA=<folder with mnist.npz> python -m benchmarks.mnist_against_skactiveml

scikit-activeml is slow, so its share may be cut: `--seeds`, `--rounds` and `--cap` bound what is measured of it, and
the rest is extrapolated from the mean seconds of each round, in a field of its own. `--side` measures one side and
keeps the other from the results file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from ray_al.core.trajectory import Protocol, initial_ids

STRATEGIES = ("random", "entropy", "margin", "kcenter_greedy", "badge")
SEEDS, ROUNDS = 5, 20
PROTOCOL = Protocol(initial=10, balanced=True, batch=10, rounds=ROUNDS)
RESULTS = Path(__file__).parent / "results" / "mnist_against_skactiveml.json"


class Mnist(NamedTuple):
    """Pixels in 0..1, float32, which halves scikit-activeml's memory and time against float64."""

    x: np.ndarray  # (60000, 784)
    y: np.ndarray  # (60000,)
    x_test: np.ndarray  # (10000, 784)
    y_test: np.ndarray  # (10000,)


def load_mnist() -> Mnist:
    with np.load(Path(os.environ["RAY_AL_DATA"]) / "mnist.npz") as file:
        pixels = [file[f"{split}_images"].reshape(-1, 784) / np.float32(255) for split in ("train", "test")]
        return Mnist(pixels[0], file["train_labels"], pixels[1], file["test_labels"])


def peer_query(strategy: str, seed: int) -> Callable[..., Any]:
    """query(x, y, clf) -> ids, for y with NaN where unlabeled and a fitted clf."""
    from skactiveml.pool import Badge, CoreSet, RandomSampling, UncertaintySampling

    if strategy in ("random", "kcenter_greedy"):
        plain = (RandomSampling if strategy == "random" else CoreSet)(random_state=seed)
        return lambda x, y, clf: plain.query(x, y, batch_size=PROTOCOL.batch)
    if strategy == "badge":
        by_model = Badge(random_state=seed)
    else:
        by_model = UncertaintySampling({"margin": "margin_sampling"}.get(strategy, strategy), random_state=seed)
    return lambda x, y, clf: by_model.query(x, y, clf, fit_clf=False, batch_size=PROTOCOL.batch)


def peer_rounds(strategy: str, seed: int, data: Mnist) -> Iterator[tuple[float, float]]:
    """Yield (seconds, test accuracy) of one round after another."""
    from skactiveml.classifier import SklearnClassifier
    from sklearn.linear_model import LogisticRegression

    query = peer_query(strategy, seed)
    # scikit-learn's own tolerance counts as converged here; to reach ray-al's takes it about twice as long per fit.
    clf = SklearnClassifier(LogisticRegression(C=1.0, max_iter=1000), classes=np.arange(10), random_state=seed)
    y = np.full(len(data.y), np.nan)
    for index in range(ROUNDS):
        started = time.perf_counter()
        ids = query(data.x, y, clf) if index else initial_ids(data.y, 10, PROTOCOL, seed)
        y[ids] = data.y[ids]
        clf.fit(data.x, y)
        accuracy = float((clf.predict(data.x_test) == data.y_test).mean())
        yield time.perf_counter() - started, accuracy


def run_peer(strategies: list[str], seeds: int, rounds: int, cap: float) -> dict[str, Any]:
    """Measure scikit-activeml. A strategy stops after the round in which it has used `cap` seconds."""
    data = load_mnist()
    side: dict[str, Any] = {"machine": machine(), "strategies": {}}
    for strategy in strategies:
        seconds: list[list[float]] = []  # per seed, per round
        accuracy: list[list[float]] = []
        for seed in range(seeds):
            if sum(map(sum, seconds)) >= cap:
                break
            seconds.append([])
            accuracy.append([])
            for spent, hit_rate in islice(peer_rounds(strategy, seed, data), rounds):
                seconds[-1].append(spent)
                accuracy[-1].append(hit_rate)
                if sum(map(sum, seconds)) >= cap:
                    break
        side["strategies"][strategy] = entry = {
            "measured_seconds": sum(map(sum, seconds)),
            "measured_rounds": sum(map(len, seconds)),
            "extrapolated_seconds": extrapolate(seconds),
            "accuracy": accuracy,
            "round_seconds": seconds,
        }
        print(
            f"scikit-activeml {strategy}:",
            {k: v for k, v in entry.items() if k.startswith(("measured", "extra"))},
            flush=True,
        )
    for field in ("measured_seconds", "extrapolated_seconds"):
        side[field] = sum(entry[field] for entry in side["strategies"].values())
    side["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return side


def extrapolate(seconds: list[list[float]]) -> float:
    """Seconds of all seeds and rounds: the measured ones, and each missing one as the mean of its round.

    A round that no seed reached counts as the last one reached, which is too little where rounds become slower.
    """
    reached = max(map(len, seconds))
    means = [float(np.mean([s[r] for s in seconds if len(s) > r])) for r in range(reached)]
    means += [means[-1]] * (ROUNDS - reached)
    missing = sum(sum(means[len(s) :]) for s in seconds) + (SEEDS - len(seconds)) * sum(means)
    return sum(map(sum, seconds)) + missing


def run_ours(strategies: list[str]) -> dict[str, Any]:
    """Run the whole sweep by the command line, on empty storage, and read its results."""
    import yaml

    import ray_al

    protocol = {"initial": PROTOCOL.initial, "balanced": True, "batch": PROTOCOL.batch, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as folder:
        axes = {"dataset": ["mnist"], "learner": ["logreg"], "strategy": strategies, "seed": SEEDS}
        sweep = {"name": "mnist", "storage": str(Path(folder, "runs")), "axes": axes, "protocol": protocol}
        path = Path(folder, "mnist.yaml")
        path.write_text(yaml.safe_dump(sweep))
        command = [str(Path(sys.executable).with_name("ray-al")), "run", str(path)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"ray-al run ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        frame = ray_al.load_results(Path(folder, "runs", "mnist"))
    printed = re.search(r"trajectories done in ([\d.]+) s", done.stdout)
    frame["seconds"] = frame[["seconds_fit", "seconds_select", "seconds_eval"]].sum(axis=1)
    busy = frame.groupby("strategy")["seconds"].sum()
    side: dict[str, Any] = {
        "machine": machine(),
        "wall_seconds": wall,  # the whole command, start-up and report included
        "trials_seconds": float(printed[1]) if printed else None,  # from the first trial's start to the last one's end
        "strategies": {},
    }
    for strategy in strategies:
        table = frame[frame["strategy"] == strategy].pivot(index="seed", columns="round", values="accuracy")
        side["strategies"][strategy] = {
            "busy_seconds": float(busy[strategy]),  # trials run at the same time: more than wall time in sum
            "wall_share_seconds": float(wall * busy[strategy] / busy.sum()),
            "accuracy": table.to_numpy().tolist(),
        }
    print(f"ray-al: {wall:.1f} s in all, {side['trials_seconds']} s of trials", flush=True)
    return side


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Time ratios, and how far the mean curves part, on the seeds and rounds that both sides have."""
    table: dict[str, Any] = {}
    for strategy in [s for s in STRATEGIES if s in ours["strategies"] and s in peer["strategies"]]:
        mine, theirs = ours["strategies"][strategy], peer["strategies"][strategy]
        seconds = {"seconds_ours": mine["wall_share_seconds"], "seconds_peer": theirs["extrapolated_seconds"]}
        seconds["ratio"] = seconds["seconds_peer"] / seconds["seconds_ours"]
        table[strategy] = seconds | curves(mine["accuracy"], theirs["accuracy"])
    totals = [sum(row[field] for row in table.values()) for field in ("seconds_peer", "seconds_ours")]
    return {"strategies": table, "ratio_wall": totals[0] / totals[1]}


def curves(ours: list[list[float]], peer: list[list[float]]) -> dict[str, Any]:
    """Mean curves, and their gap in standard errors of the difference of two independent means."""
    full = max(map(len, peer))
    kept = [i for i, row in enumerate(peer) if len(row) == full and i < len(ours)]
    a = np.array([ours[i][:full] for i in kept])  # (seeds, rounds)
    b = np.array([peer[i] for i in kept])
    result: dict[str, Any] = {
        "mean_ours": a.mean(0).round(5).tolist(),
        "mean_peer": b.mean(0).round(5).tolist(),
        "seeds_compared": len(kept),
        "largest_gap": float(np.abs(a.mean(0) - b.mean(0)).max()),
        "largest_gap_in_standard_errors": None,
        "mean_gap_in_standard_errors": None,
    }
    if len(kept) > 1:
        error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(kept))  # (rounds,)
        gaps = (a.mean(0) - b.mean(0)) / np.maximum(error, 1e-12)
        result["largest_gap_in_standard_errors"] = float(np.abs(gaps).max())
        result["mean_gap_in_standard_errors"] = float(gaps.mean())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=("both", "ours", "peer"), default="both")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, choices=range(1, SEEDS + 1), default=SEEDS, help="of scikit-activeml")
    parser.add_argument("--rounds", type=int, choices=range(1, ROUNDS + 1), default=ROUNDS, help="of scikit-activeml")
    parser.add_argument("--cap", type=float, default=1200, help="seconds per strategy of scikit-activeml")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.side != "both" and args.out.exists() else {}
    result["protocol"] = {"strategies": args.strategies, "seeds": SEEDS, "rounds": ROUNDS, "initial": 10, "batch": 10}
    if args.side != "ours":
        result["peer"] = run_peer(args.strategies, args.seeds, args.rounds, args.cap)
    if args.side != "peer":
        result["ours"] = run_ours(args.strategies)
    if "ours" in result and "peer" in result:
        result["comparison"] = compare(result["ours"], result["peer"])
        for name, row in result["comparison"]["strategies"].items():
            print(f"{name}: {row['ratio']:.1f}x, largest gap {row['largest_gap_in_standard_errors']} standard errors")
        print(f"all: {result['comparison']['ratio_wall']:.1f}x")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
