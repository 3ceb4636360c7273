"""A whole grid: `ray-al run` against the same work as independent processes, on real image embeddings.

6 strategies x 10 seeds x 10 rounds of multinomial logistic regression (l2 = 1 on the summed log-loss), test accuracy
in every round, on EfficientNet-Lite0 features (256 components) of CIFAR-10 (50,000 rows, 10 classes, 100 labels at
first and 100 more each round) and of Tiny ImageNet (100,000 rows, 200 classes, 200 and 200). The sides:

    ours    the command `ray-al run` on empty storage, start-up and report included
    rough   the same with fits that are only somewhat nearer the minimum than those of `usual` (benchmarks/fits.py)
    usual   a process per trajectory: scikit-learn and numpy (benchmarks/grid_sides.py), its own copy of the features,
            fits by scikit-learn's default tolerance, which are not at their minimum
    converged   the same with fits in float64 to tolerance 1e-7, which give ray-al's predictions: the same work
    own     a process per trajectory: ray-al's own code without Ray
    one process   all trajectories in threads of one process, through one pool scorer, without Ray: the work of `ours`

`usual`, `converged` and `own` run as many processes at a time as there are cores, one thread each, all strategies of a
seed before the next seed, so that a side that is cut at `--cap` seconds has measured every strategy; what it did not
reach is extrapolated from the mean of each round, and the field `extrapolated` says so. All sides start from the same
ids. `ours` and `rough` are run before and after them, for a machine's speed drifts: the mean of the two counts.

    RAY_AL_DATA=<folder with both files> python -m benchmarks.grid
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.grid_sides import ROUGH, STRATEGIES
from benchmarks.machine import machine
from benchmarks.memory import Watch, trial_processes
from benchmarks.mnist_against_skactiveml import curves

ROOT = Path(__file__).parent.parent
RUNS = ("ours", "rough")
SIDES = (*RUNS, "usual", "converged", "own", "one process")
SETTLE = 5.0  # seconds before each side, in which processes of the last one end
AT_ONCE = 16  # trajectories that `ours` runs at a time on two cores: all in one trial


class Grid(NamedTuple):
    data: str  # <name>.npz in RAY_AL_DATA
    batch: int  # labels at first and in every round
    classes: int
    strategies: tuple[str, ...]
    seeds: int
    rounds: int

    @property
    def protocol(self) -> dict[str, Any]:
        return {"initial": self.batch, "balanced": True, "batch": self.batch, "rounds": self.rounds}

    @property
    def trajectories(self) -> int:
        return len(self.strategies) * self.seeds


GRIDS = {
    "cifar10": ("cifar10_effnetlite0_pca256", 100, 10),
    "tinyimagenet": ("tinyimagenet_effnetlite0_pca256", 200, 200),
}


def run_ours(grid: Grid, learner: str | dict[str, Any]) -> dict[str, Any]:
    import yaml

    import ray_al

    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as folder:
        axes = {"dataset": [grid.data], "learner": [learner], "strategy": list(grid.strategies), "seed": grid.seeds}
        sweep = {"name": "grid", "storage": f"{folder}/runs", "axes": axes, "protocol": grid.protocol}
        path = Path(folder, "grid.yaml")
        path.write_text(yaml.safe_dump(sweep))
        command = [sys.executable, "-m", "ray_al", "run", str(path)]
        started = time.perf_counter()
        with open(Path(folder, "log"), "w+") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            with Watch(lambda: trial_processes(psutil.Process(process.pid))) as watch:
                process.wait()
            wall = time.perf_counter() - started
            log.seek(0)
            text = log.read()
        if process.returncode:
            raise SystemExit(f"ray-al run ended with {process.returncode}:\n{text[-4000:]}")
        frame = ray_al.load_results(f"{folder}/runs/grid")
    printed = re.search(r"trajectories done in ([\d.]+) s", text)
    phases = frame.groupby("strategy")[["seconds_fit", "seconds_select", "seconds_eval"]].sum()
    return {
        "wall_seconds": wall,
        "trials_seconds": float(printed[1]) if printed else None,
        "trajectories_per_hour": 3600 * grid.trajectories / wall,
        "extrapolated": False,
        **memory_of(watch, min(AT_ONCE, grid.trajectories)),
        # Seconds a strategy's trajectories waited for each phase: several run at a time, so more than wall time in sum.
        "waited": {str(strategy): row for strategy, row in phases.round(2).to_dict("index").items()},
        "accuracy": {
            s: frame[frame.strategy == s].pivot(index="seed", columns="round", values="accuracy").to_numpy().tolist()
            for s in grid.strategies
        },
    }


def mean_of(runs: list[dict[str, Any]], trajectories: int) -> dict[str, Any]:
    """The last of some runs of `ours`, with the means of their times."""
    times = {key: [run[key] for run in runs] for key in ("wall_seconds", "trials_seconds")}
    means = {key: sum(found) / len(found) for key, found in times.items()}
    rate = 3600 * trajectories / means["wall_seconds"]
    return runs[-1] | means | {f"{key}_each": found for key, found in times.items()} | {"trajectories_per_hour": rate}


def run_one_process(grid: Grid) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as folder:
        task = {
            "side": "one process",
            "data": str(Path(os.environ["RAY_AL_DATA"]) / f"{grid.data}.npz"),
            "storage": folder,
            "protocol": grid.protocol,
            "strategies": grid.strategies,
            "seeds": grid.seeds,
            "at_once": AT_ONCE,
        }
        command = [sys.executable, "-m", "benchmarks.grid_sides", json.dumps(task)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        with Watch(lambda: [psutil.Process(process.pid)] if process.poll() is None else []) as watch:
            text, _ = process.communicate()
    if process.returncode:
        raise SystemExit("one process failed")
    found = json.loads(text.splitlines()[-1])
    rate, at_once = 3600 * grid.trajectories / found["wall_seconds"], min(AT_ONCE, grid.trajectories)
    return {**found, "trajectories_per_hour": rate, "extrapolated": False, **memory_of(watch, at_once)}


def memory_of(watch: Watch, at_once: int | None = None) -> dict[str, Any]:
    """What was seen of processes that run `at_once` trajectories together; one each, when None."""
    found = watch.summary()
    at_once = at_once or found["processes_at_once"]
    return {**found, "at_once": at_once, "private_mb_a_trajectory": round(found["private_mb"] / at_once, 1)}


def run_side(side: str, grid: Grid, cores: int, cap: float) -> dict[str, Any]:
    if side in RUNS:
        return run_ours(grid, "logreg" if side == "ours" else {"name": "logreg", "tol": ROUGH})
    return run_one_process(grid) if side == "one process" else run_processes(side, grid, cores, cap)


def run_processes(side: str, grid: Grid, at_once: int, cap: float) -> dict[str, Any]:
    """One process per trajectory, `at_once` at a time, until all are done or `cap` seconds have passed."""
    data = Path(os.environ["RAY_AL_DATA"]) / f"{grid.data}.npz"
    order = [(strategy, seed) for seed in range(grid.seeds) for strategy in grid.strategies]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAY_AL_THREADS"), "1")
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as folder:
        started = time.perf_counter()
        left, failed = list(order), ""
        with Watch(lambda: [psutil.Process(p.pid) for p in list(running.values()) if p.poll() is None]) as watch:
            while (left or running) and time.perf_counter() - started < cap and not failed:
                for key, process in list(running.items()):
                    if process.poll() is not None:
                        failed = failed or (f"{side} {key}" if process.returncode else "")
                        del running[key]
                while left and len(running) < at_once:
                    strategy, seed = key = left.pop(0)
                    task: dict[str, Any] = {
                        "side": side,
                        "data": str(data),
                        "storage": folder,
                        "protocol": grid.protocol,
                    }
                    task |= {"strategy": strategy, "seed": seed}
                    command = [sys.executable, "-m", "benchmarks.grid_sides", json.dumps(task)]
                    with open(Path(folder, f"{strategy}-{seed}.jsonl"), "wb") as out:
                        running[key] = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **threads}, stdout=out)
                time.sleep(0.05)
            wall = time.perf_counter() - started
            for process in running.values():
                process.kill()
                process.wait()
        if failed:
            raise SystemExit(f"{failed} failed")
        lines = {
            key: [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            for key in order
            if (path := Path(folder, f"{key[0]}-{key[1]}.jsonl")).exists()
        }
    return process_result(grid, lines, wall, at_once) | memory_of(watch)


def process_result(
    grid: Grid, lines: dict[tuple[str, int], list[dict[str, float]]], wall: float, at_once: int
) -> dict[str, Any]:
    """Trajectories per hour, measured where all were done, else from mean seconds of each strategy's rounds."""
    seconds, accuracy = {}, {}
    for strategy in grid.strategies:
        runs = [lines.get((strategy, seed), []) for seed in range(grid.seeds)]
        reached = max(map(len, runs))
        means = [float(np.mean([run[r]["seconds"] for run in runs if len(run) > r])) for r in range(reached)]
        seconds[strategy] = sum(means) + (means[-1] if means else float("nan")) * (grid.rounds - reached)
        accuracy[strategy] = [[line["accuracy"] for line in run] for run in runs if run]
    done = sum(len(run) == grid.rounds for run in lines.values())
    whole = done == grid.trajectories
    expected = wall if whole else grid.seeds * sum(seconds.values()) / at_once
    return {
        "wall_seconds": wall,
        "whole_seconds": expected,
        "trajectories_done": done,
        "extrapolated": not whole,
        "trajectories_per_hour": 3600 * grid.trajectories / expected,
        "seconds_of_a_trajectory": seconds,
        "accuracy": accuracy,
    }


def compare(grid: Grid, sides: dict[str, Any], run: str) -> dict[str, Any]:
    """Each other side against a run: ratio of trajectories per hour and of memory, and gaps of the mean curves."""
    ours, found = sides[run], {}
    for name in [side for side in SIDES if side in sides and side not in RUNS]:
        other = sides[name]
        found[name] = {
            "trajectories_per_hour": ours["trajectories_per_hour"] / other["trajectories_per_hour"],
            "private_memory": other["private_mb_a_trajectory"] / max(ours["private_mb_a_trajectory"], 0.1),
            "curves": {
                s: curves(ours["accuracy"][s], other["accuracy"][s]) for s in grid.strategies if other["accuracy"][s]
            },
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--grids", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="the others stay as they are in --out"
    )
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cap", type=float, default=1200, help="seconds for each side of processes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "grid.json")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    kept = json.loads(args.out.read_text()) if args.out.is_file() else {"grids": {}}
    result: dict[str, Any] = {"grids": kept["grids"]}
    for name in args.grids:
        grid = Grid(*GRIDS[name], tuple(args.strategies), args.seeds, args.rounds)
        entry = result["grids"].setdefault(name, {"sides": {}})
        entry |= {"machine": machine(), "grid": grid._asdict(), "at_once": cores}
        around, ours = [side for side in RUNS if side in args.sides], dict[str, list[dict[str, Any]]]()
        others = [side for side in args.sides if side not in RUNS]
        for side in [*around, *others, *around]:
            time.sleep(SETTLE)
            entry["sides"][side] = run_side(side, grid, cores, args.cap)
            if side in RUNS:
                ours.setdefault(side, []).append(entry["sides"][side])
                entry["sides"][side] = mean_of(ours[side], grid.trajectories)
            elif not around:
                entry["sides"][side]["apart"] = True
            shown = {k: v for k, v in entry["sides"][side].items() if k != "accuracy"}
            print(f"{name}, {side}: {json.dumps(shown, indent=1)}", flush=True)
            runs = [run for run in RUNS if run in entry["sides"]]
            entry["comparison"] = {run: compare(grid, entry["sides"], run) for run in runs}
            args.out.write_text(json.dumps(result, indent=1) + "\n")  # a run that is stopped leaves what it measured


if __name__ == "__main__":
    main()
