"""Random faults of a cluster of three machines: nodes, links, services, trials, the driver, the head; then compared.

The machines are network namespaces of this one (root is needed): each has its own address, processes and shared
memory; the folder for storage is common. Every sweep is disturbed until it is done; its results must equal those of an
undisturbed run in every column but timing, host and device. Writes benchmarks/results/node_kills.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.machine import machine, write_json
from tests.cluster.kills import assert_same_results, run, write_sweep
from tests.cluster.namespaces import NamespaceCluster, missing
from tests.cluster.node_faults import FAULTS, rounds, start, strike, wait_for_rounds

SECONDS = 900  # for a sweep to end after its last fault: Ray may take six minutes to find out about a dead link
FAULTS_PER_SWEEP = 4


def disturbed(folder: Path, undisturbed: Path, rng: np.random.Generator, wanted: int) -> Counter[str]:
    """One sweep on one cluster, with up to `wanted` faults; returns which."""
    count: Counter[str] = Counter()
    sweep = write_sweep(folder, folder / "runs")
    with NamespaceCluster(workers=2) as cluster:
        process = start(cluster, sweep)
        while count.total() < wanted:
            fault = str(rng.choice(FAULTS))
            there = wait_for_rounds(sweep, process, rounds(sweep) + int(rng.integers(1, 14)))
            time.sleep(float(rng.uniform(0, 0.5)))
            if process.poll() == 0:
                break  # it is done: nothing is left to disturb
            if there and strike(cluster, process, fault, rng):
                count[fault] += 1
                print(f"{fault} at {rounds(sweep)} files on record", flush=True)
                time.sleep(1)
            if process.poll() is not None:
                assert fault in ("driver", "head"), sweep.file.with_suffix(".log").read_text()
                process = start(cluster, sweep)  # the same command goes on
        code = process.wait(timeout=SECONDS)
        if code != 0 and code in (-9, 137):
            code = start(cluster, sweep).wait(timeout=SECONDS)
        assert code == 0, sweep.file.with_suffix(".log").read_text()
    assert_same_results(sweep.folder, undisturbed)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/node_kills.json")
    options = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    rng, count, sweeps, started = np.random.default_rng(options.seed), Counter[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        baseline = write_sweep(Path(scratch), Path(scratch) / "runs")
        assert run(baseline).returncode == 0
        while count.total() < options.kills:
            sweeps += 1
            folder = Path(scratch) / f"sweep{sweeps}"
            folder.mkdir()
            count += disturbed(folder, baseline.folder, rng, min(FAULTS_PER_SWEEP, options.kills - count.total()))
            print(f"sweep {sweeps}: equal after {count.total()} faults", flush=True)
    result = {"machine": machine(), "seed": options.seed, "faults": dict(count), "sweeps": sweeps, "equal": True}
    write_json(options.out, {**result, "minutes": round((time.monotonic() - started) / 60, 1)})


if __name__ == "__main__":
    main()
