"""A sweep's folder as one table, and the compaction of its ledger into a few Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ray_al.results.ledger import FOLDER, parquet_bytes, part_rounds, read_table
from ray_al.results.schema import NAME_COLUMNS, SCHEMA, TrajectoryName
from ray_al.storage import Storage

RESULTS = "results"
ROWS_PER_FILE = 250_000


@dataclass(frozen=True)
class LedgerIndex:
    """What a sweep's folder holds: finished trajectories, rounds of unfinished ones, and which of these failed."""

    done: frozenset[str] = frozenset()
    rounds: Mapping[str, int] = field(default_factory=dict)  # unfinished id -> rounds on record
    failed: frozenset[str] = frozenset()


def index(sweep: Storage) -> LedgerIndex:
    """List a sweep's folder without reading more than file names and the id, round and status columns of results."""
    done = set(_complete_ids(sweep))
    rounds: dict[str, int] = {}
    failed = set()
    for name in sweep.list(FOLDER):
        if name.endswith(".parquet"):
            done.add(name.removesuffix(".parquet"))
        else:
            parts = sweep.list(f"{FOLDER}/{name}")
            rounds[name] = len(part_rounds(parts))
            if "failed.parquet" in parts:
                failed.add(name)
    open_ids = {name: n for name, n in rounds.items() if name not in done}
    return LedgerIndex(frozenset(done), open_ids, frozenset(failed - done))


def _result_files(sweep: Storage, prefix: str = "") -> list[str]:
    names = sweep.list(RESULTS)
    return [f"{RESULTS}/{name}" for name in names if name.startswith(prefix) and name.endswith(".parquet")]


def _complete_ids(sweep: Storage) -> Iterable[str]:
    import pyarrow.parquet as pq

    for name in _result_files(sweep):
        if name.startswith(f"{RESULTS}/done-"):
            yield from (
                pq.read_table(pa.BufferReader(sweep.read(name)), columns=["trajectory_id"])[0].unique().to_pylist()
            )


def read_sweep(sweep: Storage) -> pa.Table:
    """Every row of a sweep's folder once: finished, unfinished and failed trajectories, in no order."""
    names = sweep.list(FOLDER)
    done = {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}
    compacted = set(_complete_ids(sweep))
    tables = [read_table(sweep, name) for name in _result_files(sweep, "done-")]
    tables += [read_table(sweep, f"{FOLDER}/{i}.parquet") for i in sorted(done - compacted)]
    live = {name for name in names if not name.endswith(".parquet")} - done - compacted
    for trajectory in sorted(live):
        parts = sweep.list(f"{FOLDER}/{trajectory}")
        rounds = part_rounds(parts)
        tables += [read_table(sweep, f"{FOLDER}/{trajectory}/round-{round:05d}.parquet") for round in rounds]
        if "failed.parquet" in parts:
            failure = read_table(sweep, f"{FOLDER}/{trajectory}/failed.parquet")
            tables.append(failure.filter(pc.equal(failure["round"], len(rounds))))
    if not names:
        # A results folder that was copied away without its ledger: what was unfinished then is in the other files.
        tables += [read_table(sweep, name) for name in _result_files(sweep, "open-")]
    return _once(pa.concat_tables([SCHEMA.empty_table(), *tables]))


def _once(table: pa.Table) -> pa.Table:
    """Drop the second copy of a row, which a crash during compaction leaves."""
    seen: set[tuple[str, int]] = set()
    keys = zip(table["trajectory_id"].to_pylist(), table["round"].to_pylist(), strict=True)
    first = [key not in seen and not seen.add(key) for key in keys]  # type: ignore[func-returns-value]
    return table if all(first) else table.filter(pa.array(first, pa.bool_()))


def adopt(storage: Storage, sweep_name: str, wanted: Mapping[str, TrajectoryName]) -> int:
    """Copy finished trajectories that other sweeps of this storage already hold; returns how many there were."""
    sweep = storage.child(sweep_name)
    left = dict(wanted)
    for other in storage.list():
        if other == sweep_name or not left:
            continue
        folder = storage.child(other)
        shared = left.keys() & index(folder).done
        if not shared:
            continue
        table = rename(read_sweep(folder), left)
        for trajectory in sorted(shared):
            rows = table.filter(pc.equal(table["trajectory_id"], trajectory))
            sweep.write(f"{FOLDER}/{trajectory}.parquet", parquet_bytes(rows))
            del left[trajectory]
    return len(wanted) - len(left)


def rename(table: pa.Table, names: Mapping[str, TrajectoryName]) -> pa.Table:
    """Set the name columns of known trajectories, whose labels may have changed since they ran."""
    ids = table["trajectory_id"].to_pylist()
    for column in NAME_COLUMNS:
        old = table[column].to_pylist()
        new = [getattr(names[i], column) if i in names else o for i, o in zip(ids, old, strict=True)]
        table = table.set_column(table.column_names.index(column), column, pa.array(new, SCHEMA.field(column).type))
    return table


def compact(sweep: Storage, names: Sequence[TrajectoryName]) -> None:
    """Rewrite a sweep's folder as a few large files in `results/`, rows in the order of `names`, then of rounds.

    Files are written before those they replace are deleted, so a crash leaves rows twice on disk and never none;
    reading drops the second copy. Finished trajectories that `names` no longer has stay, after the others; where one
    bears the very name of a current one (its label was kept while its settings changed), it moves to `superseded/`.
    """
    order = {name.trajectory_id: position for position, name in enumerate(names)}
    table = rename(read_sweep(sweep), {name.trajectory_id: name for name in names})
    ids = table["trajectory_id"]
    rank = pa.array([order.get(i, len(order)) for i in ids.to_pylist()], pa.int64())
    table = table.append_column("_rank", rank).sort_by(
        [("_rank", "ascending"), ("trajectory_id", "ascending"), ("round", "ascending")]
    )
    complete = index(sweep).done
    current = {_shown(name) for name in names}
    rows = table.select(["trajectory_id", *NAME_COLUMNS]).to_pylist()
    kind = [
        "superseded"
        if row["trajectory_id"] not in order and tuple(row[c] for c in NAME_COLUMNS) in current
        else ("done" if row["trajectory_id"] in complete else "open")
        for row in rows
    ]
    table = table.drop_columns("_rank")
    written = set()
    for which, folder in (("done", RESULTS), ("open", RESULTS), ("superseded", "superseded")):
        part = table.filter(pa.array([k == which for k in kind], pa.bool_()))
        for start in range(0, len(part), ROWS_PER_FILE):
            data = parquet_bytes(part.slice(start, ROWS_PER_FILE))
            name = f"{folder}/{which}-{start // ROWS_PER_FILE:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
            if not sweep.exists(name):
                sweep.write(name, data)
            written.add(name)
    for name in set(_result_files(sweep)) - written:
        sweep.delete(name)
    for name in sweep.list(FOLDER):
        if name.removesuffix(".parquet") in complete:
            sweep.delete(f"{FOLDER}/{name}")


def _shown(name: TrajectoryName) -> tuple[object, ...]:
    return tuple(getattr(name, column) for column in NAME_COLUMNS)
