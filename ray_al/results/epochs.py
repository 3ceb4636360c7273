"""What learners report of their epochs: one small Parquet file per trajectory and round, beside the ledger.

In a sweep's folder: epochs/<id>/round-00003.parquet. A round whose model was taken from elsewhere (an equal fit of
another trajectory, a state) has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_al.results.ledger import parquet_bytes, read_parquet
from ray_al.results.schema import TrajectoryName
from ray_al.storage import Storage

FOLDER = "epochs"


def write_epochs(sweep: Storage, name: TrajectoryName, round: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of one fit, in order, with the columns that any of them has, and the trajectory's name."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    whose = {**vars(name), "round": round}
    table = pa.Table.from_pylist([{**whose, **{key: row.get(key) for key in columns}} for row in rows])
    sweep.write(f"{FOLDER}/{name.trajectory_id}/round-{round:05d}.parquet", parquet_bytes(table))


def read_epochs(sweep: Storage) -> list[pa.Table]:
    """All epochs on record in a sweep's folder, a table for each trajectory and round.

    Raises:
        DamagedFile: one of its files cannot be read.
    """
    return [
        read_parquet(sweep, f"{FOLDER}/{trajectory}/{part}", remedy="restore it, or delete it to read the others")
        for trajectory in sorted(sweep.list(FOLDER))
        for part in sorted(sweep.list(f"{FOLDER}/{trajectory}"))
    ]
