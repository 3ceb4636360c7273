"""The ledger and the dataset made of it: whole parts, resumption, compaction, crashes at every moment, full disks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ray_al import load_results
from ray_al.core.round import RoundRecord
from ray_al.results import compaction
from ray_al.results.compaction import adopt, compact, finished
from ray_al.results.dataset import index, read_sweep
from ray_al.results.ledger import Ledger
from ray_al.results.schema import SCHEMA, TrajectoryName
from ray_al.storage import Storage

CIRCUMSTANCES = {"peak_mb": 100.0, "host": "h", "device": "cpu", "versions": "{}"}


def _name(seed: int = 0, sweep: str = "s", id: str | None = None) -> TrajectoryName:
    return TrajectoryName(id or f"id{seed:02d}", sweep, "digits", "logreg", "random", "10+2x5", seed)


def _record(round: int) -> RoundRecord:
    n = 10 + 5 * round
    asked = np.arange(n, n + 5)
    return RoundRecord(
        round, n, n, 0, 0.5 + round / 10, 0.4, 0.3, 1.2, 0.1, asked, asked / 7, np.array([n, 0]), asked[:1], asked[:1]
    )


def _ledger(sweep: Storage, seed: int = 0) -> Ledger:
    return Ledger(sweep, _name(seed))


def _run(sweep: Storage, seed: int, rounds: int = 3, finish: bool = True) -> None:
    ledger = _ledger(sweep, seed)
    done, _ = ledger.load()
    for round in range(len(done), rounds):
        ledger.append(_record(round), CIRCUMSTANCES)
    if finish:
        ledger.finish()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path)


@pytest.fixture
def sweep(storage: Storage) -> Storage:
    return storage.child("s")


def test_records_come_back_as_they_were(sweep: Storage) -> None:
    _run(sweep, 0, 2, finish=False)
    records, state = _ledger(sweep).load()
    assert state is None
    for round, record in enumerate(records):
        for field, value in vars(_record(round)).items():
            got = getattr(record, field)
            assert np.array_equal(got, value)
            assert getattr(got, "dtype", None) == getattr(value, "dtype", None)


def test_states_lie_beside_the_last_part_only(sweep: Storage) -> None:
    ledger = _ledger(sweep)
    for round in range(3):
        ledger.append(_record(round), CIRCUMSTANCES, state=f"after {round}".encode())
    assert _ledger(sweep).load()[1] == b"after 2"
    assert [n for n in sweep.list("ledger/id00") if n.endswith(".state")] == ["round-00002.state"]


def test_a_damaged_part_and_what_follows_runs_again(sweep: Storage) -> None:
    _run(sweep, 0, 3, finish=False)
    path = Path(sweep.root) / "ledger/id00/round-00001.parquet"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=r"id00/round-00001\.parquet is damaged \(.*\): round 1 runs again"):
        records, _ = _ledger(sweep).load()
    assert len(records) == 1
    with pytest.warns(UserWarning, match="runs again"):
        _run(sweep, 0, 3)
    assert len(load_results(sweep.root)) == 3


def test_storage_that_cannot_be_read_for_a_while_costs_no_round(
    sweep: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(sweep, 0, 3, finish=False)
    whole = Storage.read

    def read(self: Storage, name: str) -> bytes:
        if name.endswith("round-00001.parquet"):
            raise OSError("slow down")
        return whole(self, name)

    monkeypatch.setattr(Storage, "read", read)
    with pytest.raises(OSError, match="slow down"):
        _ledger(sweep).load(carried=True)
    monkeypatch.undo()
    assert len(_ledger(sweep).load()[0]) == 3


def test_unfinished_finished_and_failed_trajectories_are_all_loaded(sweep: Storage) -> None:
    _run(sweep, 0)
    _run(sweep, 1, 2, finish=False)
    _run(sweep, 2, 1, finish=False)
    _ledger(sweep, 2).fail(1, "ValueError: no", 2, CIRCUMSTANCES)
    for _ in range(2):  # before and after compaction
        held = index(sweep)
        assert (held.done, dict(held.rounds), held.failed) == ({"id00"}, {"id01": 2, "id02": 1}, {"id02"})
        frame = load_results(sweep.root)
        assert frame.groupby("seed").size().to_dict() == {0: 3, 1: 2, 2: 2}
        failure = frame[frame.status == "failed"].iloc[0]
        assert (failure["round"], failure.error, failure.retries) == (1, "ValueError: no", 2)
        assert np.isnan(failure.accuracy)
        compact(sweep, [_name(seed) for seed in range(3)])
    _run(sweep, 2, 2, finish=False)
    assert index(sweep).failed == set(), "a trajectory that goes on has not failed"
    _run(sweep, 2)
    compact(sweep, [_name(seed) for seed in range(3)])
    assert not (load_results(sweep.root).status == "failed").any()


def test_compaction_leaves_one_file_and_loses_nothing(sweep: Storage) -> None:
    for seed in range(5):
        _run(sweep, seed)
    before = load_results(sweep.root)
    names = [_name(seed) for seed in (3, 1, 0, 2, 4)]
    compact(sweep, names)
    files = sweep.list("results")
    assert len(files) == 1
    assert sweep.list("ledger") == []
    pd.testing.assert_frame_equal(before, load_results(sweep.root))
    plain = pd.read_parquet(Path(sweep.root) / "results")
    assert plain.trajectory_id.drop_duplicates().tolist() == [n.trajectory_id for n in names]
    assert list(plain.columns) == SCHEMA.names
    compact(sweep, names)
    assert sweep.list("results") == files


def test_a_results_folder_alone_can_be_loaded(sweep: Storage, tmp_path: Path) -> None:
    _run(sweep, 0)
    _run(sweep, 1, 2, finish=False)
    compact(sweep, [_name(0), _name(1)])
    (tmp_path / "copy").mkdir()
    os.rename(Path(sweep.root) / "results", tmp_path / "copy" / "results")
    assert len(load_results(tmp_path / "copy")) == 5


def test_compaction_leaves_other_files_of_the_folder_alone(sweep: Storage) -> None:
    mine = ("results/by_strategy.parquet", "results/notes.txt", "ledger/notes.txt")
    for name in mine:
        sweep.write(name, b"my own")
    _run(sweep, 0)
    compact(sweep, [_name(0)])
    (own,) = (name for name in sweep.list("results") if name.startswith("done-"))
    sweep.write("results/done-backup.parquet", sweep.read(f"results/{own}"))
    _run(sweep, 1)
    compact(sweep, [_name(0), _name(1)])
    assert len(load_results(sweep)) == 6
    assert [sweep.read(name) for name in mine] == [b"my own"] * 3
    assert sweep.exists("results/done-backup.parquet")
    assert not sweep.exists(f"results/{own}")


def test_compaction_beside_another_ones_leaves_what_that_has_filed(
    sweep: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [_name(seed) for seed in range(3)]
    _run(sweep, 0)
    read = compaction.read_sweep

    def late(folder: Storage) -> pa.Table:
        table = read(folder)
        monkeypatch.undo()
        for seed in (1, 2):
            _run(sweep, seed)
        compact(sweep, names)
        return table

    monkeypatch.setattr(compaction, "read_sweep", late)
    compact(sweep, names)
    assert index(sweep).done == {"id00", "id01", "id02"}
    assert len(load_results(sweep.root)) == 9


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_within_compaction_loses_and_doubles_nothing(
    sweep: Storage, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        _run(sweep, seed)
    compact(sweep, [_name(0), _name(1), _name(2)])
    _run(sweep, 3)
    before = load_results(sweep.root)
    left = writes

    def crash(self: Storage, name: str, *rest: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        original[len(rest)](self, name, *rest)

    original = {1: Storage.write, 0: Storage.delete}
    monkeypatch.setattr(Storage, "write", crash)
    monkeypatch.setattr(Storage, "delete", crash)
    with contextlib.suppress(KeyboardInterrupt):
        compact(sweep, [_name(seed) for seed in range(4)])
    monkeypatch.undo()
    pd.testing.assert_frame_equal(before, load_results(sweep.root))
    compact(sweep, [_name(seed) for seed in range(4)])
    pd.testing.assert_frame_equal(before, load_results(sweep.root))
    assert len(sweep.list("results")) == 1


def test_new_labels_rename_old_rows_and_old_settings_step_aside(sweep: Storage) -> None:
    _run(sweep, 0)
    _run(sweep, 1)
    compact(sweep, [_name(0), _name(1)])
    renamed = replace(_name(0), strategy="uniform")
    changed = _name(1, id="other")  # the label and seed of id01, but another experiment
    compact(sweep, [renamed, changed])
    assert load_results(sweep.root).strategy.unique().tolist() == ["uniform"]
    assert len(sweep.list("superseded")) == 1


def test_done_work_of_other_sweeps_is_taken_over(storage: Storage) -> None:
    first, second = storage.child("s"), storage.child("t")
    for seed in range(3):
        _run(first, seed)
    compact(first, [_name(seed) for seed in range(2)])
    wanted = {f"id{seed:02d}": _name(seed, sweep="t") for seed in (1, 2, 3)}
    assert finished(storage, "t", wanted.keys()) == {"id01", "id02"}
    assert second.list() == []
    assert adopt(storage, "t", wanted) == 2
    assert index(second).done == {"id01", "id02"}
    assert set(load_results(second.root).sweep) == {"t"}
    assert read_sweep(first).num_rows == 9


def test_a_write_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    """A real limit on the size of files, in a process of its own: the write fails midway, as on a full disk."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from ray_al.storage import Storage
storage = Storage.open({str(tmp_path)!r})
storage.write("small", b"x" * 1000)
try:
    storage.write("large", b"x" * 5000)
except OSError as error:
    print("failed:", error.strerror)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "failed: File too large"
    assert os.listdir(tmp_path) == ["small"]


def test_loading_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a sweep's folder"):
        load_results(tmp_path / "nowhere")
