"""A sweep's folder as one table, and the compaction of its ledger into a few Parquet files."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_al.results.ledger import FOLDER, parquet_bytes, part_rounds, read_table
from ray_al.results.schema import NAME_COLUMNS, SCHEMA, TrajectoryName
from ray_al.storage import Storage

RESULTS = "results"
SUPERSEDED = "superseded"
ROWS_PER_FILE = 250_000
PASSES = 20  # over a folder that changes meanwhile, before giving up
_T = TypeVar("_T")


@dataclass(frozen=True)
class LedgerIndex:
    """What a sweep's folder holds: finished trajectories, rounds of unfinished ones, and which of these failed."""

    done: frozenset[str] = frozenset()
    rounds: Mapping[str, int] = field(default_factory=dict)  # unfinished id -> rounds on record
    failed: frozenset[str] = frozenset()


def index(sweep: Storage) -> LedgerIndex:
    """List a sweep's folder without reading more than file names and the ids of results."""
    return _steady(lambda: _index(sweep))


def read_sweep(sweep: Storage) -> pa.Table:
    """Every row of a sweep's folder once: finished, unfinished and failed trajectories, in no order.

    Right while trials write and another process compacts, too: rounds that are recorded meanwhile may be left out,
    and nothing else.

    Raises:
        FileNotFoundError: the folder changed through all of many passes.
    """
    return _steady(lambda: _read_sweep(sweep))


def _steady(look: Callable[[], _T]) -> _T:
    """Look again, after short pauses, while files move away under it: `look` raises FileNotFoundError then."""
    for tried in range(PASSES - 1):
        with contextlib.suppress(FileNotFoundError):
            return look()
        time.sleep(min(0.01 * 2**tried, 0.5))
    return look()


# A trajectory moves from its folder to its own file and from there to `results/`, each place written before the one
# before is cleared. Looking at the places in this order meets it at least once, whatever moves meanwhile.


def _index(sweep: Storage) -> LedgerIndex:
    before, _ = _entries(sweep)
    parts = {name: sweep.list(f"{FOLDER}/{name}") for name in sorted(before)}
    after, done = _entries(sweep)
    tables = _done_tables(
        sweep, lambda name: pq.read_table(pa.BufferReader(sweep.read(name)), columns=["trajectory_id"])
    )
    done = done.union(*(_ids(table) for table in tables))
    _check_met(sweep, before - after - done)
    live = parts.keys() - done
    failed = frozenset(name for name in live if "failed.parquet" in parts[name])
    return LedgerIndex(frozenset(done), {name: len(part_rounds(parts[name])) for name in live}, failed)


def _read_sweep(sweep: Storage) -> pa.Table:
    before, _ = _entries(sweep)
    live = {name: parts for name in sorted(before) if (parts := _read_live(sweep, name)) is not None}
    after, own = _entries(sweep)
    tables = _done_tables(sweep, lambda name: read_table(sweep, name))
    compacted: set[str] = set().union(*(_ids(table) for table in tables))
    tables += [read_table(sweep, f"{FOLDER}/{name}.parquet") for name in sorted(own - compacted)]
    done = own | compacted
    _check_met(sweep, before - done - (after & live.keys()))
    tables += [table for name in live.keys() - done for table in live[name]]
    if not before and not own:
        # A results folder that was copied away without its ledger: what was unfinished then is in the other files.
        tables += [read_table(sweep, name) for name in _result_files(sweep, "open-")]
    return _once(pa.concat_tables([SCHEMA.empty_table(), *tables]))


def _entries(sweep: Storage) -> tuple[set[str], set[str]]:
    """Ids with a folder of parts, and ids with a file of their own."""
    names = sweep.list(FOLDER)
    files = {name for name in names if name.endswith(".parquet")}
    return set(names) - files, {name.removesuffix(".parquet") for name in files}


def _read_live(sweep: Storage, trajectory: str) -> list[pa.Table] | None:
    """The rounds of an unfinished trajectory, and its failure; None when it was finished meanwhile."""
    folder = f"{FOLDER}/{trajectory}"
    parts = sweep.list(folder)
    rounds = part_rounds(parts)
    try:
        tables = [read_table(sweep, f"{folder}/round-{round:05d}.parquet") for round in rounds]
        if "failed.parquet" in parts:
            failure = read_table(sweep, f"{folder}/failed.parquet")
            tables.append(failure.filter(pc.equal(failure["round"], len(rounds))))
    except FileNotFoundError:
        return None
    return tables


def _done_tables(sweep: Storage, read: Callable[[str], pa.Table], folder: str = RESULTS) -> list[pa.Table]:
    names = _result_files(sweep, "done-", folder)
    tables = [read(name) for name in names]
    if names != _result_files(sweep, "done-", folder):
        raise FileNotFoundError(f"{sweep.root}/{folder} was compacted while it was read")
    return tables


def _check_met(sweep: Storage, lost: Set[str]) -> None:
    if lost:
        raise FileNotFoundError(f"{sweep.root}: trajectory {min(lost)} went away while it was read")


def _result_files(sweep: Storage, prefix: str = "", folder: str = RESULTS) -> list[str]:
    names = sweep.list(folder)
    return [f"{folder}/{name}" for name in names if name.startswith(prefix) and name.endswith(".parquet")]


def _ids(table: pa.Table) -> list[str]:
    ids: list[str] = table["trajectory_id"].unique().to_pylist()
    return ids


def _once(table: pa.Table) -> pa.Table:
    """Drop the second copy of a row, which a crash during compaction leaves."""
    seen: set[tuple[str, int]] = set()
    keys = zip(table["trajectory_id"].to_pylist(), table["round"].to_pylist(), strict=True)
    first = [key not in seen and not seen.add(key) for key in keys]  # type: ignore[func-returns-value]
    return table if all(first) else table.filter(pa.array(first, pa.bool_()))


def adopt(storage: Storage, sweep_name: str, wanted: Mapping[str, TrajectoryName]) -> int:
    """Copy finished trajectories from other sweeps of this storage, and from what this one or they have superseded.

    Returns how many there were.
    """
    sweep = storage.child(sweep_name)
    left = dict(wanted)
    for other in [sweep_name, *(name for name in storage.list() if name != sweep_name)]:
        folder = storage.child(other)
        if other != sweep_name and (shared := left.keys() & index(folder).done):
            _take(sweep, read_sweep(folder), shared, left)
        if left:
            _take(sweep, _superseded(folder), left.keys(), left)
        if not left:
            break
    return len(wanted) - len(left)


def _superseded(sweep: Storage) -> pa.Table:
    """The finished trajectories that compaction moved aside."""
    tables = _steady(lambda: _done_tables(sweep, lambda name: read_table(sweep, name), SUPERSEDED))
    return _once(pa.concat_tables([SCHEMA.empty_table(), *tables]))


def _take(sweep: Storage, table: pa.Table, ids: Set[str], left: dict[str, TrajectoryName]) -> None:
    """Write those trajectories of `table` that are among `ids` to the ledger, and strike them off `left`."""
    rows = table.filter(pc.is_in(table["trajectory_id"], pa.array(sorted(ids), pa.string())))
    rows = rename(rows, left).sort_by([("trajectory_id", "ascending"), ("round", "ascending")])
    for start, stop in _spans(rows):
        trajectory = rows["trajectory_id"][start].as_py()
        sweep.write(f"{FOLDER}/{trajectory}.parquet", parquet_bytes(rows.slice(start, stop - start)))
        del left[trajectory]


def _spans(table: pa.Table, rows: int = 0) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of whole trajectories: as many as fit in `rows` rows, but at least one."""
    ids = table["trajectory_id"].to_pylist()
    ends = [end for end in range(1, len(ids) + 1) if end == len(ids) or ids[end] != ids[end - 1]]
    start = 0
    for end, following in zip(ends, [*ends, math.inf][1:], strict=True):
        if following - start > rows:
            yield start, end
            start = end


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
    complete = index(sweep).done  # before reading: what finishes in between is left to the next compaction
    order = {name.trajectory_id: position for position, name in enumerate(names)}
    table = rename(read_sweep(sweep), {name.trajectory_id: name for name in names})
    ids = table["trajectory_id"]
    rank = pa.array([order.get(i, len(order)) for i in ids.to_pylist()], pa.int64())
    table = table.append_column("_rank", rank).sort_by(
        [("_rank", "ascending"), ("trajectory_id", "ascending"), ("round", "ascending")]
    )
    table = table.drop_columns("_rank")
    current = {_shown(name) for name in names}
    rows = table.select(["trajectory_id", *NAME_COLUMNS]).to_pylist()
    place = [_place(row, row["trajectory_id"] in order, row["trajectory_id"] in complete, current) for row in rows]
    written, filed = set(), set()
    for folder, which in ((RESULTS, "done"), (RESULTS, "open"), (SUPERSEDED, "done")):
        part = table.filter(pa.array([p == (folder, which) for p in place], pa.bool_()))
        # A file of done trajectories holds all rounds of each, so a crash between two files cuts none of them short.
        for number, (start, stop) in enumerate(_spans(part, ROWS_PER_FILE)):
            data = parquet_bytes(part.slice(start, stop - start))
            name = f"{folder}/{which}-{number:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
            if not sweep.exists(name):
                sweep.write(name, data)
            written.add(name)
        filed |= set(_ids(part)) if which == "done" else set()
    for name in set(_result_files(sweep)) - written:
        sweep.delete(name)
    for name in sweep.list(FOLDER):
        if name.removesuffix(".parquet") in filed:
            sweep.delete(f"{FOLDER}/{name}")


def _place(row: Mapping[str, Any], wanted: bool, done: bool, current: Set[tuple[Any, ...]]) -> tuple[str, str] | None:
    """The folder and kind of file that a row goes to; None leaves it in the ledger alone."""
    if wanted or tuple(row[column] for column in NAME_COLUMNS) not in current:
        return RESULTS, "done" if done else "open"
    return (SUPERSEDED, "done") if done else None


def _shown(name: TrajectoryName) -> tuple[Any, ...]:
    return tuple(getattr(name, column) for column in NAME_COLUMNS)
