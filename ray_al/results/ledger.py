"""The per-round record of a trajectory: its result and its checkpoint in one.

In a sweep's folder:
    ledger/<id>/round-00003.parquet   one round of a trajectory that is not finished; a file that exists is whole
    ledger/<id>/round-00003.state     weights that a learner carries on to the next round, written before its round
    ledger/<id>/failed.parquet        why the trajectory stopped, until it is run again
    ledger/<id>.parquet               a finished trajectory
    results/*.parquet                 what `ray_al.results.compaction` made of them
"""

from __future__ import annotations

import functools
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
from ray_al.storage import DamagedFile, DamageWarning, Storage

FOLDER = "ledger"
THREADED_BYTES = 2**20
RUN_AGAIN = "restore or delete it, and the sweep's own `ray-al run` does again what it held"
_PART = re.compile(r"round-(\d{5})\.parquet")


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def read_table(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet file, its columns in the order of the schema; null where an older file lacks one.

    Raises:
        DamagedFile: it cannot be read as Parquet.
        FileNotFoundError: there is none.
    """
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(column) for column in columns])
    table = read_parquet(storage, name, columns)
    if table.schema.equals(schema):
        return table
    there = set(table.column_names)
    try:
        found = [table[f.name].cast(f.type) if f.name in there else pa.nulls(len(table), f.type) for f in schema]
    except pa.ArrowException as error:
        raise DamagedFile(storage, name, error, RUN_AGAIN) from None
    return pa.table(found, schema=schema)


def read_parquet(
    storage: Storage, name: str, columns: Sequence[str] | None = None, remedy: str = RUN_AGAIN
) -> pa.Table:
    """Read those of the columns that one Parquet file has. Raises as `read_table`."""
    data = storage.read(name)
    try:
        # Small files come by the ten thousand: `pq.read_table` and threads cost them several times their reading.
        return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=len(data) > THREADED_BYTES)
    except (pa.ArrowException, OSError) as error:  # of bytes that are in memory: Arrow's word for nonsense
        raise DamagedFile(storage, name, error, remedy) from None


def read_or_skip(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """`read_table`, where a damaged file is left out with a warning: for sweeps that only lend what they have."""
    try:
        return read_table(storage, name, columns)
    except DamagedFile as error:
        _warn(f"{error}; until then it is left out")
        return SCHEMA.empty_table()


@functools.cache
def _warn(text: str) -> None:
    """Once per process, however often the file is met."""
    warnings.warn(text, DamageWarning, stacklevel=3)


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
        self.damage = ""  # what `load` could not read

    def load(self, carried: bool = False) -> tuple[list[RoundRecord], bytes | None]:
        """The rounds on record and, for learners that carry weights, the state after the last of them.

        A part that cannot be read is dropped with a warning, `damage`, and so are those after it: their rounds run
        again. Where weights are `carried` on, all rounds do then: only the last state is kept. An earlier failure is
        forgotten: whoever loads goes on.
        """
        records: list[RoundRecord] = []
        names = self.sweep.list(self._folder)
        if "failed.parquet" in names:
            self.sweep.delete(f"{self._folder}/failed.parquet")
        for round in part_rounds(names):
            part = f"{self._folder}/round-{round:05d}.parquet"
            try:
                table = read_table(self.sweep, part)
                (record,) = to_records(table)
            except ValueError as error:  # storage that cannot be read for a while (OSError) has damaged nothing
                fault = getattr(error, "damage", f"{part}: {error}")
                self.damage = f"{fault}: round {round} runs again, and so do those after it"
                break
            records.append(record)
            self._rows += table.to_pylist()
        last = f"round-{len(records) - 1:05d}.state"
        if self.damage and carried and records and last not in names:
            self.damage += " and, since only the last weights are kept, those before it"
            records, self._rows = [], []
        if self.damage:
            warnings.warn(self.damage, DamageWarning, stacklevel=2)
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
