"""Results of sweeps that nobody ran: folders as a run leaves them, with accuracies that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ray_al
from ray_al.core.round import RoundRecord
from ray_al.reproduction.claims import Claim, Paper
from ray_al.reproduction.papers import PAPERS
from ray_al.reproduction.records import Records
from ray_al.reproduction.verdicts import Line, judge
from ray_al.results.ledger import parquet_bytes
from ray_al.results.schema import TrajectoryName, record_row, to_table
from ray_al.storage import Storage
from ray_al.sweep_file import normalize, override, read_sweep_file

SWEEPS = Path(__file__).parent.parent.parent / "sweeps"
Accuracy = Callable[[str, str, str, int, int], float | None]  # dataset, learner, strategy, seed, labels
NONE = np.empty(0, np.int64)


def sweep_of(file: str, *sets: str) -> dict[str, Any]:
    """A sweep file of the repository, as a run writes it down."""
    return normalize(override(read_sweep_file(SWEEPS / f"{file}.yaml"), sets))


def label(entry: Any) -> str:
    return str(entry.get("label", entry.get("name"))) if isinstance(entry, dict) else str(entry)


def labels_of(protocol: Mapping[str, Any]) -> list[int]:
    if "budgets" in protocol:
        return list(protocol["budgets"])
    return [protocol["initial"] + i * protocol["batch"] for i in range(protocol.get("rounds", 0))]


def cells(raw: Mapping[str, Any]) -> Iterable[tuple[str, str, str, list[int]]]:
    """Dataset, learner, strategy, numbers of labels of every cell; datasets and protocols are zipped."""
    protocols = raw.get("protocol", [{}])
    protocols = protocols * (len(raw["axes"]["dataset"]) if len(protocols) == 1 else 1)
    for dataset, protocol in zip(raw["axes"]["dataset"], protocols, strict=True):
        for learner in raw["axes"]["learner"]:
            for strategy in raw["axes"]["strategy"]:
                names = {"dataset": label(dataset), "learner": label(learner), "strategy": label(strategy)}
                if not any(_matches(rule, names) for rule in raw.get("exclude", [])):
                    yield *names.values(), labels_of(protocol)


def _matches(rule: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    return all(names[axis] in (wanted if isinstance(wanted, list) else [wanted]) for axis, wanted in rule.items())


def write(storage: Storage, raw: Mapping[str, Any], accuracy: Accuracy, version: str = ray_al.__version__) -> Storage:
    """The folder of a finished and compacted sweep; what `accuracy` does not know is left out.

    Trajectories with equal names have equal ids in all sweeps, unless they read the space of an auto-encoder.
    """
    folder, rows = storage.child(raw["name"]), []
    circumstances = {"peak_mb": 1.0, "host": "h", "device": "cpu", "versions": json.dumps({"ray-al": version})}
    for dataset, learner, strategy, paid in cells(raw):
        space = raw.get("spaces", {}) if "latent" in learner + strategy else ""
        for seed in raw["axes"]["seed"]:
            name = TrajectoryName(
                f"{dataset}-{learner}-{strategy}-{space}-{seed}", raw["name"], dataset, learner, strategy, "p", seed
            )
            known = [(n, value) for n in paid if (value := accuracy(dataset, learner, strategy, seed, n)) is not None]
            for i, (n, value) in enumerate(known):
                record = RoundRecord(i, n, n, 0, value, value, value, 1.0, 0.1, NONE, np.empty(0), NONE)
                rows.append(record_row(name, record, circumstances))
    folder.write("results/done-0000-0.parquet", parquet_bytes(to_table(rows)))
    folder.write("sweep.json", json.dumps(raw).encode())
    return folder


def spread(count: int, *key: object) -> np.ndarray:
    """`count` numbers of mean 0 and standard deviation 1 (n - 1), in an order of their own for each key."""
    values = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    values = values / values.std(ddof=1) if count > 1 else values
    seed = [sum(ord(c) * 31**i for i, c in enumerate(str(part))) % 2**32 for part in key]
    return np.random.default_rng(seed).permutation(values)


def lines(key: str, storage: Storage, paper: Paper | None = None) -> dict[str, Line]:
    """Every claim of a paper by its section and text."""
    paper = paper or PAPERS[key]
    judged = judge(paper, Records(storage, ray_al.__version__, paper.commands))
    return {f"{one.section.title}: {line.claim.text}": line for one in judged for line in one.lines}


def all_claims() -> list[Claim]:
    return [claim for paper in PAPERS.values() for section in paper.sections for claim in section.claims]
