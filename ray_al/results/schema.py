"""Columns of the results, and records as Arrow tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_al.core.round import RoundRecord

# What names a trajectory to people. The id alone says what it is; these may change without changing it.
NAME_COLUMNS = ("sweep", "dataset", "learner", "strategy", "protocol", "seed")
# What may differ between two runs of one trajectory; everything else is reproduced exactly.
CIRCUMSTANCE_COLUMNS = (
    "fit_shared", "seconds_fit", "seconds_select", "seconds_eval", "peak_mb", "host", "device", "versions",
)  # fmt: skip

_IDS = pa.list_(pa.int64())
SCHEMA = pa.schema(
    [
        ("sweep", pa.string()),
        ("trajectory_id", pa.string()),
        ("dataset", pa.string()),
        ("learner", pa.string()),
        ("strategy", pa.string()),
        ("protocol", pa.string()),
        ("seed", pa.int64()),
        ("round", pa.int64()),
        ("labels", pa.int64()),
        ("n_labeled", pa.int64()),
        ("n_synthetic", pa.int64()),
        ("accuracy", pa.float64()),
        ("balanced_accuracy", pa.float64()),
        ("macro_f1", pa.float64()),
        ("nll", pa.float64()),
        ("ece", pa.float64()),
        ("asked_ids", _IDS),
        ("asked_scores", pa.list_(pa.float64())),
        ("class_counts", _IDS),
        ("assumed_ids", _IDS),
        ("assumed_labels", _IDS),
        ("fit_shared", pa.bool_()),
        ("seconds_fit", pa.float64()),
        ("seconds_select", pa.float64()),
        ("seconds_eval", pa.float64()),
        ("peak_mb", pa.float64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("retries", pa.int64()),
        ("host", pa.string()),
        ("device", pa.string()),
        ("versions", pa.string()),
    ]
)
_RECORD_FIELDS = tuple(f.name for f in dataclasses.fields(RoundRecord))
_ARRAYS = ("asked_ids", "asked_scores", "class_counts", "assumed_ids", "assumed_labels")


@dataclasses.dataclass(frozen=True)
class TrajectoryName:
    """How a trajectory is called in the results."""

    trajectory_id: str
    sweep: str
    dataset: str
    learner: str
    strategy: str
    protocol: str
    seed: int


def record_row(name: TrajectoryName, record: RoundRecord, circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the results; `circumstances` gives peak_mb, host, device and versions."""
    row = dataclasses.asdict(name) | {key: getattr(record, key) for key in _RECORD_FIELDS}
    return row | {"status": "ok", "error": "", "retries": 0} | dict(circumstances)


def failure_row(name: TrajectoryName, round: int, error: str, retries: int, **circumstances: Any) -> dict[str, Any]:
    """The row of a trajectory that failed in `round`, after `retries` restarts of its process; it has no metrics."""
    row = dataclasses.asdict(name) | dict.fromkeys(_ARRAYS, ())
    return row | {"round": round, "status": "failed", "error": error, "retries": retries} | circumstances


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of `SCHEMA`; a column that a row lacks is null."""
    return pa.table({f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in SCHEMA}, schema=SCHEMA)


def to_records(table: pa.Table) -> list[RoundRecord]:
    """The rounds of one trajectory, in order, failure rows left out."""
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    return [_record(row) for row in sorted(rows, key=lambda row: row["round"])]


def _record(row: Mapping[str, Any]) -> RoundRecord:
    kinds = {key: np.float64 if key == "asked_scores" else np.int64 for key in _ARRAYS}
    values: dict[str, Any] = {key: row[key] for key in _RECORD_FIELDS}
    values["fit_shared"] = bool(row["fit_shared"])  # null in rows that are older than the column
    return RoundRecord(**values | {key: np.array(row[key], kind) for key, kind in kinds.items()})
