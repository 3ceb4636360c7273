"""kill -9 at random moments: a sweep is killed again and again in random parts until it is done, then compared.

At least 20 kills; the result must equal an undisturbed run's in every column but timing, host and device. Writes
benchmarks/results/random_kills.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, write_json
from tests.cluster.kills import VICTIMS, assert_same_results, run, run_and_kill, write_sweep


def disturbed(folder: Path, undisturbed: Path, rng: np.random.Generator, kills: int) -> Counter[str]:
    """Run sweeps, each killed at random moments until it ends by itself; returns how often each part was killed."""
    count: Counter[str] = Counter()
    attempt = 0
    while count.total() < kills:
        attempt += 1
        place = folder / f"attempt{attempt}"
        place.mkdir()
        sweep = write_sweep(place, place / "runs")
        for _ in range(3):
            victim = str(rng.choice(list(VICTIMS)))
            on_record = sum(1 for _ in (sweep.folder / "ledger").glob("**/*.parquet"))
            code, killed = run_and_kill(
                sweep, {victim: on_record + int(rng.integers(1, 12))}, float(rng.uniform(0, 0.5))
            )
            count[victim] += len(killed)
            print(f"{count.total()} kills: {victim if killed else 'none'}, the run ended with {code}", flush=True)
            if code == 0:
                break  # it is done: nothing is left to disturb
        last = run(sweep)
        assert last.returncode == 0, last.stdout + last.stderr
        assert_same_results(sweep.folder, undisturbed)
        print(f"attempt {attempt}: equal", flush=True)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/random_kills.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        baseline = write_sweep(folder, folder / "runs")
        assert run(baseline).returncode == 0
        count = disturbed(folder, baseline.folder, np.random.default_rng(options.seed), options.kills)
    result: dict[str, Any] = {"machine": machine(), "seed": options.seed, "kills": dict(count), "equal": True}
    write_json(options.out, result)


if __name__ == "__main__":
    main()
