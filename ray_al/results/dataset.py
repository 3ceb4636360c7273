"""A sweep's folder as one table, whatever moves in it meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ray_al.results.ledger import FOLDER, part_rounds, read_table
from ray_al.results.schema import SCHEMA
from ray_al.storage import Storage

RESULTS, SUPERSEDED = "results", "superseded"
TABLES_AT_ONCE = 512
PASSES = 20  # over a folder that changes meanwhile, before giving up
_T = TypeVar("_T")
Read = Callable[..., pa.Table]  # `read_table`, or `read_or_skip`


@dataclass(frozen=True)
class LedgerIndex:
    """What a sweep's folder holds: finished trajectories, rounds of unfinished ones, and which of these failed."""

    done: frozenset[str] = frozenset()
    rounds: Mapping[str, int] = field(default_factory=dict)  # unfinished id -> rounds on record
    failed: frozenset[str] = frozenset()


def index(sweep: Storage, read: Read = read_table) -> LedgerIndex:
    """List a sweep's folder without reading more than file names and the ids of results."""
    return steady(lambda: _index(sweep, read))


def superseded_ids(sweep: Storage, read: Read = read_table) -> set[str]:
    """The finished trajectories that compaction moved aside."""
    return steady(lambda: _compacted_ids(sweep, SUPERSEDED, read))


def _compacted_ids(sweep: Storage, folder: str, read: Read) -> set[str]:
    tables = done_tables(sweep, lambda name: read(sweep, name, ["trajectory_id"]), folder)
    return set().union(*(ids_of(table) for table in tables))


def read_sweep(sweep: Storage) -> pa.Table:
    """Every row of a sweep's folder once: finished, unfinished and failed trajectories, in no order.

    Right while trials write and another process compacts, too: rounds that are recorded meanwhile may be left out,
    and nothing else.

    Raises:
        DamagedFile: one of its files cannot be read.
        FileNotFoundError: the folder changed through all of many passes.
    """
    return steady(lambda: _read_sweep(sweep))


def read_done(sweep: Storage, ids: Set[str], read: Read = read_table) -> pa.Table:
    """Every row of those finished trajectories of `ids` that the folder holds, once, in no order."""
    return steady(lambda: _read_done(sweep, ids, read))


def steady(look: Callable[[], _T]) -> _T:
    """Look again, after short pauses, while files move away under it: `look` raises FileNotFoundError then."""
    for tried in range(PASSES - 1):
        with contextlib.suppress(FileNotFoundError):
            return look()
        time.sleep(min(0.01 * 2**tried, 0.5))
    return look()


def fits_saved(sweep: Storage) -> int:
    """Rounds of a sweep's folder whose model another trajectory had fitted."""
    return int(pc.sum(read_sweep(sweep)["fit_shared"]).as_py() or 0)


# A trajectory moves from its folder to its own file and from there to `results/`, each place written before the one
# before is cleared. Looking at the places in this order meets it at least once, whatever moves meanwhile.


def _index(sweep: Storage, read: Read) -> LedgerIndex:
    before, _ = _entries(sweep)
    parts = {name: sweep.list(f"{FOLDER}/{name}") for name in sorted(before)}
    after, done = _entries(sweep)
    done |= _compacted_ids(sweep, RESULTS, read)
    _check_met(sweep, before - after - done)
    live = parts.keys() - done
    failed = frozenset(name for name in live if "failed.parquet" in parts[name])
    return LedgerIndex(frozenset(done), {name: len(part_rounds(parts[name])) for name in live}, failed)


def _read_sweep(sweep: Storage) -> pa.Table:
    before, _ = _entries(sweep)
    live = {name: parts for name in sorted(before) if (parts := _read_live(sweep, name)) is not None}
    after, own = _entries(sweep)
    tables = done_tables(sweep, lambda name: read_table(sweep, name))
    compacted: set[str] = set().union(*(ids_of(table) for table in tables))
    tables += _own_tables(sweep, sorted(own - compacted), read_table)
    done = own | compacted
    _check_met(sweep, before - done - (after & live.keys()))
    tables += [table for name in live.keys() - done for table in live[name]]
    if not before and not own:
        # A results folder that was copied away without its ledger: what was unfinished then is in the other files.
        tables += [read_table(sweep, name) for name in result_files(sweep, "open-")]
    return first_copies(pa.concat_tables([SCHEMA.empty_table(), *tables]))


def _read_done(sweep: Storage, ids: Set[str], read: Read) -> pa.Table:
    _, own = _entries(sweep)
    tables = done_tables(sweep, lambda name: read(sweep, name))
    compacted: set[str] = set().union(*(ids_of(table) for table in tables))
    tables += _own_tables(sweep, sorted((own & ids) - compacted), read)
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    return first_copies(table.filter(pc.is_in(table["trajectory_id"], pa.array(sorted(ids), pa.string()))))


def _own_tables(sweep: Storage, names: Sequence[str], read: Read) -> Iterator[pa.Table]:
    """Finished trajectories from their own files, many to a table: a table of its own costs each 20 kB."""
    for start in range(0, len(names), TABLES_AT_ONCE):
        tables = [read(sweep, f"{FOLDER}/{name}.parquet") for name in names[start : start + TABLES_AT_ONCE]]
        yield pa.concat_tables(tables).combine_chunks()


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


def done_tables(sweep: Storage, read: Callable[[str], pa.Table], folder: str = RESULTS) -> list[pa.Table]:
    names = result_files(sweep, "done-", folder)
    tables = [read(name) for name in names]
    if names != result_files(sweep, "done-", folder):
        raise FileNotFoundError(f"{sweep.root}/{folder} was compacted while it was read")
    return tables


def _check_met(sweep: Storage, lost: Set[str]) -> None:
    if lost:
        raise FileNotFoundError(f"{sweep.root}: trajectory {min(lost)} went away while it was read")


def result_files(sweep: Storage, prefix: str = "", folder: str = RESULTS) -> list[str]:
    names = sweep.list(folder)
    return [f"{folder}/{name}" for name in names if name.startswith(prefix) and name.endswith(".parquet")]


def ids_of(table: pa.Table) -> list[str]:
    ids: list[str] = table["trajectory_id"].unique().to_pylist()
    return ids


def first_copies(table: pa.Table) -> pa.Table:
    """Drop the second copy of a row, which a crash during compaction leaves."""
    rows = pa.table([table["trajectory_id"], table["round"], pa.array(range(len(table)))], ["id", "round", "row"])
    first = rows.group_by(["id", "round"]).aggregate([("row", "min")])["row_min"]
    return table if len(first) == len(table) else table.take(first.take(pc.sort_indices(first)))
