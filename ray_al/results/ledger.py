"""The per-round record of a trajectory: its result and its checkpoint in one.

In a sweep's folder:
    ledger/<id>/round-00003.parquet   one round of a trajectory that is not finished; a file that exists is whole
    ledger/<id>/round-00003.state     weights that a learner carries on to the next round, written before its round
    ledger/<id>/failed.parquet        why the trajectory stopped, until it is run again
    ledger/<id>.parquet               a finished trajectory
    results/*.parquet                 what `ray_al.results.compaction` made of them
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_al.core.round import RoundRecord
from ray_al.results.schema import SCHEMA, TrajectoryName, failure_row, record_row, to_records, to_table
from ray_al.storage import Storage

FOLDER = "ledger"
THREADED_BYTES = 2**20
_PART = re.compile(r"round-(\d{5})\.parquet")


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def read_table(storage: Storage, name: str) -> pa.Table:
    """Read one Parquet file, its columns in the order of the schema; null where an older file lacks one."""
    data = storage.read(name)
    # Small files come by the ten thousand: `pq.read_table` and threads cost them several times their reading.
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=len(data) > THREADED_BYTES)
    if table.schema.equals(SCHEMA):
        return table
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type) for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def part_rounds(names: Sequence[str]) -> list[int]:
    """Rounds 0..n-1 that file names of an unfinished trajectory hold; what lies after a gap does not count."""
    found = {int(match[1]) for name in names if (match := _PART.fullmatch(name))}
    rounds = 0
    while rounds in found:
        rounds += 1
    return list(range(rounds))


@dataclass
class Ledger:
    """Writer and reader of one trajectory's parts. `sweep` is the sweep's folder."""

    sweep: Storage
    name: TrajectoryName

    def __post_init__(self) -> None:
        self._folder = f"{FOLDER}/{self.name.trajectory_id}"
        self._rows: list[dict[str, Any]] = []

    def load(self) -> tuple[list[RoundRecord], bytes | None]:
        """The rounds on record and, for learners that carry weights, the state after the last of them.

        A part that cannot be read is dropped with a warning, and so are those after it: their rounds run again. An
        earlier failure is forgotten: whoever loads goes on.
        """
        records: list[RoundRecord] = []
        names = self.sweep.list(self._folder)
        if "failed.parquet" in names:
            self.sweep.delete(f"{self._folder}/failed.parquet")
        for round in part_rounds(names):
            try:
                table = read_table(self.sweep, f"{self._folder}/round-{round:05d}.parquet")
                (record,) = to_records(table)
            except (pa.ArrowException, OSError, ValueError) as error:
                warnings.warn(f"{self._folder}: round {round} is damaged and runs again ({error})", stacklevel=2)
                break
            records.append(record)
            self._rows += table.to_pylist()
        last = f"round-{len(records) - 1:05d}.state"
        state = self.sweep.read(f"{self._folder}/{last}") if last in names else None
        return records, state

    def is_finished(self) -> bool:
        return self.sweep.exists(f"{self._folder}.parquet")

    def append(self, record: RoundRecord, circumstances: Mapping[str, Any], state: bytes | None = None) -> None:
        """Put one round on record. When this returns it is on disk; when it raises OSError nothing is.

        `circumstances` gives peak_mb, host, device and versions; `state` is for learners that carry weights.
        """
        row = record_row(self.name, record, circumstances)
        stem = f"{self._folder}/round-{record.round:05d}"
        if state is not None:
            self.sweep.write(f"{stem}.state", state)  # first, so that a round on record always has its state
        table = to_table([row])
        self.sweep.write(f"{stem}.parquet", parquet_bytes(table, compression="none", use_dictionary=False))
        self._rows.append(row)
        if state is not None and record.round:
            self.sweep.delete(f"{self._folder}/round-{record.round - 1:05d}.state")

    def finish(self) -> None:
        """Merge the parts to one file; the trajectory then counts as done."""
        self.sweep.write(f"{self._folder}.parquet", parquet_bytes(to_table(self._rows)))
        self.sweep.delete(self._folder)

    def fail(self, round: int, error: str, retries: int, circumstances: Mapping[str, Any]) -> None:
        """Record why the trajectory stopped. Its rounds so far stay, and a later run goes on after them."""
        table = to_table([failure_row(self.name, round, error, retries, **circumstances)])
        self.sweep.write(f"{self._folder}/failed.parquet", parquet_bytes(table))
