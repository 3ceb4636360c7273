"""The dataset while it moves: trials that finish, compaction at the same time, settings that come back."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from ray_al import load_results
from ray_al.results import compaction
from ray_al.results.compaction import adopt, compact, finished
from ray_al.results.dataset import index, read_sweep
from ray_al.results.ledger import read_table
from ray_al.storage import Storage
from tests.results.test_ledger import _name, _run


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path)


@pytest.fixture
def sweep(storage: Storage) -> Storage:
    return storage.child("s")


def _sizes(sweep: Storage) -> dict[str, int]:
    return {i: len(rows) for i, rows in load_results(sweep.root).groupby("trajectory_id")}


def test_a_trajectory_that_finishes_within_compaction_loses_nothing(
    sweep: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(sweep, 0)
    _run(sweep, 1, 2, finish=False)
    read = compaction.read_sweep

    def late(folder: Storage) -> pa.Table:
        table = read(folder)
        _run(sweep, 1)
        return table

    monkeypatch.setattr(compaction, "read_sweep", late)
    compact(sweep, [_name(0), _name(1)])
    monkeypatch.undo()
    assert _sizes(sweep) == {"id00": 3, "id01": 3}
    compact(sweep, [_name(0), _name(1)])
    assert _sizes(sweep) == {"id00": 3, "id01": 3}
    assert sweep.list("ledger") == []


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_crash_between_two_files_cuts_no_trajectory_short(
    sweep: Storage, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [_name(seed) for seed in range(5)]
    for seed in range(5):
        _run(sweep, seed)
    monkeypatch.setattr(compaction, "ROWS_PER_FILE", rows)
    write, written = Storage.write, 0

    def crash(self: Storage, name: str, data: bytes) -> None:
        nonlocal written
        if written == 1:
            raise KeyboardInterrupt
        written += 1
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", crash)
        with contextlib.suppress(KeyboardInterrupt):
            compact(sweep, names)
    compact(sweep, names)
    assert _sizes(sweep) == dict.fromkeys((n.trajectory_id for n in names), 3)
    held = [read_table(sweep, f"results/{name}") for name in sweep.list("results")]
    assert [len(table) for table in held] == {1: [3] * 5, 4: [3] * 5, 7: [6, 6, 3]}[rows]


def test_drafts_of_a_killed_compaction_go_with_the_next(sweep: Storage) -> None:
    _run(sweep, 0)
    compact(sweep, [_name(0)])
    assert sweep.local
    (kept,) = sweep.list("results")
    for name in (f".{kept}.0123abcd", ".own", ".DS_Store"):
        (sweep.local / "results" / name).write_bytes(b"half")
    compact(sweep, [_name(0)])
    assert {file.name for file in (sweep.local / "results").iterdir()} == {kept, ".own", ".DS_Store"}


def test_settings_that_come_back_find_their_old_results(storage: Storage) -> None:
    """One label, settings A, then B, then A again; and A in a sweep of another name."""
    sweep = storage.child("s")
    before, after = _name(1, id="id01"), _name(1, id="id02")
    for seed, name in ((1, before), (2, after)):
        _run(sweep, seed)
        compact(sweep, [name])
    assert index(sweep).done == {"id02"}
    for own in ("s", "t"):
        assert finished(storage, own, {"id01", "id03"}) == {"id01"}
        assert adopt(storage, own, {"id01": _name(1, sweep=own)}) == 1
        assert index(storage.child(own)).done >= {"id01"}
    compact(sweep, [before])
    assert _sizes(sweep) == {"id01": 3}


def test_what_was_never_finished_is_not_taken_for_done(storage: Storage) -> None:
    sweep = storage.child("s")
    _run(sweep, 1, 2, finish=False)
    compact(sweep, [_name(1, id="other")])
    assert finished(storage, "s", {"id01"}) == set()
    assert adopt(storage, "s", {"id01": _name(1)}) == 0
    assert index(sweep).rounds == {"id01": 2}


def test_many_trajectories_are_adopted_whole(storage: Storage) -> None:
    for seed in range(30):
        _run(storage.child("s"), seed)
    compact(storage.child("s"), [_name(seed) for seed in range(20)])
    wanted = {f"id{seed:02d}": _name(seed, sweep="t") for seed in range(40)}
    assert adopt(storage, "t", wanted) == 30
    assert _sizes(storage.child("t")) == dict.fromkeys((f"id{seed:02d}" for seed in range(30)), 3)


def test_reading_is_right_while_others_finish_and_compact(sweep: Storage) -> None:
    names = [_name(seed) for seed in range(32)]
    for seed in range(32):
        _run(sweep, seed, 2, finish=False)
    failed: list[BaseException] = []

    def move() -> None:
        try:
            for seed in range(32):
                _run(sweep, seed)
                if seed % 4 == 3:
                    compact(sweep, names)
        except BaseException as error:
            failed.append(error)

    mover = threading.Thread(target=move)
    mover.start()
    passes, done = 0, 0
    while mover.is_alive():
        table = read_sweep(sweep)
        counts = {
            i["trajectory_id"]: i["round_count"]
            for i in table.group_by("trajectory_id").aggregate([("round", "count")]).to_pylist()
        }
        assert len(counts) == 32
        assert set(counts.values()) <= {2, 3}
        held = index(sweep)
        assert len(held.done) + len(held.rounds) == 32
        assert len(held.done) >= done
        passes, done = passes + 1, len(held.done)
    mover.join()
    assert failed == []
    assert passes > 3
    assert set(_sizes(sweep).values()) == {3}
