"""Rewriting of a sweep's folder: its ledger compacted into a few Parquet files, and finished work taken over."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_al.results.dataset import (
    RESULTS,
    SUPERSEDED,
    Read,
    done_tables,
    first_copies,
    ids_of,
    index,
    read_done,
    read_sweep,
    result_files,
    steady,
    superseded_ids,
)
from ray_al.results.ledger import FOLDER, parquet_bytes, read_or_skip, read_table
from ray_al.results.schema import NAME_COLUMNS, SCHEMA, TrajectoryName
from ray_al.storage import Storage

ROWS_PER_FILE = 250_000
_WRITTEN = re.compile(rf"{RESULTS}/(done|open)-\d{{4,}}-[0-9a-f]{{12}}\.parquet")  # by `compact`


def finished(storage: Storage, sweep_name: str, ids: Set[str]) -> set[str]:
    """Those trajectories of `ids` that some sweep of this storage has finished, or this or another has superseded.

    Raises:
        DamagedFile: a file of this sweep cannot be read. Those of others are left out with a warning.
    """
    found: set[str] = set()
    for name in _sweeps(storage, sweep_name):
        folder, read = storage.child(name), _reader(name, sweep_name)
        held = (ids - found) & index(folder, read).done
        # What another sweep has is going to be read: only what can be is there.
        found |= held if name == sweep_name else set(ids_of(read_done(folder, held, read))) if held else set()
        if found < ids:
            found |= ids & superseded_ids(folder, read)
        if found == ids:
            break
    return found


def adopt(storage: Storage, sweep_name: str, wanted: Mapping[str, TrajectoryName]) -> int:
    """Copy finished trajectories from other sweeps of this storage, and from what this one or they have superseded.

    Returns how many there were.
    """
    sweep = storage.child(sweep_name)
    left = dict(wanted)
    for other in _sweeps(storage, sweep_name):
        if not left:
            break
        folder, read = storage.child(other), _reader(other, sweep_name)
        if other != sweep_name and (shared := left.keys() & index(folder, read).done):
            _take(sweep, read_done(folder, shared, read), shared, left)
        if left:
            _take(sweep, _superseded(folder, read), left.keys(), left)
    return len(wanted) - len(left)


def _sweeps(storage: Storage, first: str) -> list[str]:
    return [first, *(name for name in storage.list() if name != first)]


def _reader(name: str, own: str) -> Read:
    """A damaged file of the sweep in question is its user's to mend; one of another sweep must not stop it."""
    return read_table if name == own else read_or_skip


def _superseded(sweep: Storage, read: Read) -> pa.Table:
    """The finished trajectories that compaction moved aside."""
    tables = steady(lambda: done_tables(sweep, lambda name: read(sweep, name), SUPERSEDED))
    return first_copies(pa.concat_tables([SCHEMA.empty_table(), *tables]))


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
    known = list(names.values())
    which = pc.index_in(table["trajectory_id"], pa.array(names.keys(), pa.string()))  # null where not known
    for column in NAME_COLUMNS:
        kind = SCHEMA.field(column).type
        new = pa.array([getattr(name, column) for name in known], kind).take(which)
        merged = pc.if_else(pc.is_valid(which), new, table[column])
        table = table.set_column(table.column_names.index(column), column, merged.cast(kind))
    return table


def compact(sweep: Storage, names: Sequence[TrajectoryName]) -> None:
    """Rewrite a sweep's folder as a few large files in `results/`, rows in the order of `names`, then of rounds.

    Files are written before those they replace are deleted, so a crash leaves rows twice on disk and never none;
    reading drops the second copy. Finished trajectories that `names` no longer has stay, after the others; where one
    bears the very name of a current one (its label was kept while its settings changed), it moves to `superseded/`.
    """
    complete = index(sweep).done  # before reading: what finishes in between is left to the next compaction
    before = set(result_files(sweep))  # what comes in between stays: another run may have written it
    order = {name.trajectory_id: position for position, name in enumerate(names)}
    table = rename(read_sweep(sweep), {name.trajectory_id: name for name in names})
    rank = pc.index_in(table["trajectory_id"], pa.array(order, pa.string())).fill_null(len(order))
    table = table.append_column("_rank", rank).sort_by(
        [("_rank", "ascending"), ("trajectory_id", "ascending"), ("round", "ascending")]
    )
    table = table.drop_columns("_rank")
    place = _places(table, order.keys(), complete, {_shown(name) for name in names})
    written, filed = set(), set()
    for folder, which in ((RESULTS, "done"), (RESULTS, "open"), (SUPERSEDED, "done")):
        ids = [trajectory for trajectory, (there, kind) in place.items() if (there, kind) == (folder, which)]
        part = table.filter(pc.is_in(table["trajectory_id"], pa.array(ids, pa.string())))
        # A file of done trajectories holds all rounds of each, so a crash between two files cuts none of them short.
        for number, (start, stop) in enumerate(_spans(part, ROWS_PER_FILE)):
            data = parquet_bytes(part.slice(start, stop - start))
            name = f"{folder}/{which}-{number:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
            if not sweep.exists(name):
                sweep.write(name, data)
            written.add(name)
        filed |= set(ids_of(part)) if which == "done" else set()
    for name in before - written:
        if _WRITTEN.fullmatch(name):  # others in the folder are somebody's own
            sweep.delete(name)
    for name in sweep.list(FOLDER):
        if name.removesuffix(".parquet") in filed:
            sweep.delete(f"{FOLDER}/{name}")
    for folder in (RESULTS, SUPERSEDED):
        sweep.delete_drafts(folder)


def _places(
    table: pa.Table, wanted: Set[str], done: Set[str], current: Set[tuple[Any, ...]]
) -> dict[str, tuple[str, str]]:
    """The folder and kind of file that each trajectory goes to; any other stays in the ledger alone."""
    found: dict[str, tuple[str, str]] = {}
    heads = table.select(NAME_COLUMNS).take(_heads(table))
    for trajectory, shown in zip(ids_of(table), zip(*heads.to_pydict().values(), strict=True), strict=True):
        if trajectory in wanted or shown not in current:
            found[trajectory] = RESULTS, "done" if trajectory in done else "open"
        elif trajectory in done:
            found[trajectory] = SUPERSEDED, "done"
    return found


def _heads(table: pa.Table) -> pa.Array:
    """The first row of every trajectory, in the order of `ids_of`."""
    encoded = table["trajectory_id"].combine_chunks().dictionary_encode()
    return pa.array(np.unique(encoded.indices.to_numpy(), return_index=True)[1])


def _shown(name: TrajectoryName) -> tuple[Any, ...]:
    return tuple(getattr(name, column) for column in NAME_COLUMNS)
