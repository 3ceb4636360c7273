"""One sweep of 10,000 short trajectories: does the driver slow down, or grow, from the first thousand to the last?

Each trajectory is 2 rounds of `random` with a learner that does nothing, so that what is measured is the running
itself; each has a trial. With `--learner logreg` they share trials, and fits are real ones. The sweep runs by `ray-al
run`; then `plan`, `status`, `results` and `report` are timed on what it left. Writes
benchmarks/results/scheduler_scale.json, or scheduler_scale_logreg.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.machine import machine, write_json
from benchmarks.memory import MB, available_mb
from benchmarks.runner_overhead import sweep

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "ray_al"]
READERS = ("plan", "status", "results", "report")


def run(file: Path, folder: Path, seconds: float) -> tuple[list[dict[str, float]], float]:
    """Run the sweep; what was done and how large the driver was every `seconds`, and when the command ended."""
    timeline: list[dict[str, float]] = []
    before = available_mb()
    started = time.perf_counter()
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen([*COMMAND, "run", str(file), "--no-dashboard"], cwd=ROOT, stdout=log, stderr=log)
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(seconds)
            look = {
                "seconds": time.perf_counter() - started,
                "done": _done(folder),
                "machine_mb": before - available_mb(),
            }
            try:
                memory = driver.memory_full_info()
            except psutil.Error:
                break
            timeline.append(look | {"driver_rss_mb": memory.rss / MB, "driver_private_mb": memory.uss / MB})
        ended = time.perf_counter() - started
        log.seek(0)
        if process.wait():
            raise SystemExit(f"ray-al run ended with {process.returncode}:\n{log.read()[-4000:]}")
    return timeline, ended


def _done(folder: Path) -> int:
    """Trajectories with a file of their own; compaction takes these away at the end."""
    ledger = folder / "runs" / "overhead" / "ledger"
    return sum(entry.name.endswith(".parquet") for entry in os.scandir(ledger)) if ledger.is_dir() else 0


def portions(timeline: list[dict[str, float]], trajectories: int, count: int) -> list[dict[str, float]]:
    """Trajectories per minute of each of `count` equal portions, by linear interpolation between looks."""
    rising = [
        look for i, look in enumerate(timeline) if look["done"] > max((p["done"] for p in timeline[:i]), default=-1)
    ]
    first = next(i for i, look in enumerate(rising) if look["done"] > 0)
    rising = rising[max(first - 1, 0) :]

    def when(done: float) -> float:
        for a, b in pairwise(rising):
            if a["done"] <= done <= b["done"]:
                return a["seconds"] + (done - a["done"]) / (b["done"] - a["done"]) * (b["seconds"] - a["seconds"])
        return rising[-1]["seconds"]

    size = trajectories / count
    edges = [when(size * i) for i in range(count + 1)]
    return [
        {
            "trajectories": int(size * (i + 1)),
            "per_minute": 60 * size / (b - a),
            "driver_private_mb": next((p["driver_private_mb"] for p in timeline if p["seconds"] >= b), float("nan")),
        }
        for i, (a, b) in enumerate(pairwise(edges))
    ]


def timed(*words: str) -> float:
    started = time.perf_counter()
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ray-al {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return time.perf_counter() - started


def measure(trajectories: int, rounds: int, seconds: float, learner: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ray-al-bench-") as name:
        folder = Path(name)
        file = folder / "overhead.yaml"
        raw = sweep(str(folder / "runs"), trajectories, rounds, 0.0)
        if learner != "trivial":
            raw["axes"]["learner"] = [learner]
        file.write_text(yaml.safe_dump(raw))
        plan_before = timed("plan", str(file))
        timeline, ended = run(file, folder, seconds)
        where = str(folder / "runs" / "overhead")
        readers = {word: timed(word, str(file) if word == "plan" else where) for word in READERS}
        again = timed("run", str(file), "--no-dashboard")
        files = [entry.stat().st_size for entry in Path(where, "results").iterdir()]
    started = next(look["seconds"] for look in timeline if look["done"])
    last = max(timeline, key=lambda look: look["done"])["seconds"]
    parts = portions(timeline, trajectories, min(10, trajectories // 20))
    rates = [part["per_minute"] for part in parts]
    return {
        "trajectories": trajectories,
        "rounds": rounds,
        "learner": learner,
        "seconds": {
            "whole_command": ended,
            "to_first_trajectory": started,
            "trajectories": last - started,
            "compaction_and_report": ended - last,
            "run_again_with_nothing_to_do": again,
            "plan_before": plan_before,
            **{f"{word}_after": spent for word, spent in readers.items()},
        },
        "trajectories_per_minute": 60 * trajectories / (last - started),
        "last_portion_to_first": rates[-1] / rates[0],
        "portions": parts,
        "driver_private_mb_peak": max(look["driver_private_mb"] for look in timeline),
        "machine_mb_peak": max(look["machine_mb"] for look in timeline),
        "result_files": len(files),
        "result_mb": sum(files) / MB,
        "timeline": [{k: round(v, 1) for k, v in look.items()} for look in timeline[:: max(1, len(timeline) // 100)]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between looks")
    parser.add_argument("--learner", choices=("trivial", "logreg"), default="trivial")
    parser.add_argument("--out", help="default: benchmarks/results/scheduler_scale.json, or with its learner's name")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    own = "" if options.learner == "trivial" else f"_{options.learner}"
    found = measure(options.trajectories, options.rounds, options.every, options.learner)
    write_json(
        options.out or f"benchmarks/results/scheduler_scale{own}.json", {"machine": machine(), **found}, show=False
    )


if __name__ == "__main__":
    main()
