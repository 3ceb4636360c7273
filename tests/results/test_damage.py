"""Files that lost their bytes: named where their sweep is asked for, left out where it is another one."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from ray_al import cli, load_results
from ray_al.__main__ import main
from ray_al.config import parse_sweep
from ray_al.core.round import RoundRecord
from ray_al.experiment import Sweep
from ray_al.planning import plan_tables
from ray_al.reproduction.records import Records
from ray_al.results.compaction import adopt, compact, finished
from ray_al.results.dataset import index
from ray_al.results.ledger import Ledger
from ray_al.results.load import load_epochs
from ray_al.storage import DamagedFile, DamageWarning, Storage
from ray_al.sweep_file import ConfigError
from tests.results.test_ledger import CIRCUMSTANCES, _record

COMMANDS = ("status", "results", "report", "verify")


def sweep_of(place: Path, name: str, seeds: int = 2) -> Sweep:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": seeds}
    raw = {"name": name, "storage": str(place), "axes": axes, "protocol": {"initial": 10, "batch": 5, "rounds": 2}}
    (place / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    return parse_sweep(raw)


def fill(sweep: Sweep, rounds: int = 2, compacted: bool = True) -> Storage:
    """A sweep's folder after a run, or before its compaction."""
    folder = Storage.open(sweep.storage).child(sweep.name)
    folder.write("sweep.json", json.dumps(sweep.raw).encode())
    for trajectory in sweep.trajectories:
        ledger = Ledger(folder, trajectory.name)
        for round in range(rounds):
            ledger.append(record(round), CIRCUMSTANCES)
        if rounds == trajectory.protocol.rounds:
            ledger.finish()
    if compacted:
        compact(folder, [t.name for t in sweep.trajectories])
    return folder


record: type[RoundRecord] = _record  # type: ignore[assignment]


def command(*words: object, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and what the errors' stream got, of the whole command with its handling of faults."""
    said: list[str] = []
    monkeypatch.setattr(cli.err, "print", lambda text, **_: said.append(str(text)))
    monkeypatch.setattr("sys.argv", ["ray-al", *map(str, words)])
    monkeypatch.setattr("sys.path", [*sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), "\n".join(said)


def test_a_broken_file_of_a_sweep_is_named_by_every_command_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(sweep_of(tmp_path, "tam"))
    broken = tmp_path / "tam" / "results" / "done-0009-0123456789ab.parquet"
    broken.write_bytes(b"junk!")
    with pytest.raises(DamagedFile, match=rf"{broken} is damaged \(.+\): restore or delete it"):
        load_results(folder)
    for words in [*((name, tmp_path / "tam") for name in COMMANDS), ("run", tmp_path / "tam.yaml")]:
        code, said = command(*words, monkeypatch=monkeypatch)
        assert code == 2, words
        assert said.count("\n") == 0
        assert f"error:[/] {broken} is damaged" in said
    with pytest.raises(ConfigError, match=f"tam: its sweep.json or results cannot be read.*{broken}"):
        Records(Storage.open(tmp_path), "0").runs("tam")


@pytest.mark.parametrize("compacted", [True, False])
def test_a_broken_file_of_another_sweep_is_left_out_with_one_warning(
    tmp_path: Path, compacted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compacted or not: what else the other sweep has is taken over, the broken part is not."""
    storage = Storage.open(tmp_path)
    other, mine = sweep_of(tmp_path, "tam"), sweep_of(tmp_path, "x", seeds=3)
    fill(other, compacted=compacted)
    if compacted:
        broken = tmp_path / "tam" / "results" / "done-0009-0123456789ab.parquet"
        broken.write_bytes(b"junk!")
    else:
        broken = tmp_path / "tam" / "ledger" / f"{other.trajectories[0].id}.parquet"
        broken.write_bytes(broken.read_bytes()[:-9])
    whole = {t.id for t in other.trajectories if t.id != broken.stem}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert finished(storage, "x", mine.by_id.keys()) == whole
        assert adopt(storage, "x", {i: t.name for i, t in mine.by_id.items()}) == len(whole)
        tables = list(plan_tables(mine))
    (warning,) = caught
    assert warning.category is DamageWarning
    assert re.fullmatch(rf"{broken} is damaged \(.*; until then it is left out", str(warning.message))
    assert index(storage.child("x")).done == whole
    assert f"{len(whole)} done" in str(tables[-1])
    broken.write_bytes(b"other junk")
    monkeypatch.setattr(cli.out, "print", lambda *_, **__: None)
    code, said = command("plan", tmp_path / "x.yaml", monkeypatch=monkeypatch)
    assert code == 0
    assert said.count("warning:") == (1 if compacted else 0)  # plan reads no results but the ids of compacted ones


def test_a_truncated_part_of_the_ledger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of(tmp_path, "tam")
    folder = fill(sweep, rounds=1, compacted=False)
    part = tmp_path / "tam" / "ledger" / sweep.trajectories[0].id / "round-00000.parquet"
    part.write_bytes(part.read_bytes()[:-7])
    code, said = command("status", tmp_path / "tam", monkeypatch=monkeypatch)
    assert code == 2
    assert f"{part} is damaged" in said
    ledger = Ledger(folder, sweep.trajectories[0].name)
    with pytest.warns(DamageWarning, match="round 0 runs again"):
        assert ledger.load() == ([], None)
    part.unlink()
    assert command("status", tmp_path / "tam", monkeypatch=monkeypatch)[0] == 0


def test_weights_that_do_not_fit_the_rounds_left_start_the_trajectory_anew(tmp_path: Path) -> None:
    """Only the state after the last round is kept: without that round there is none to go on from."""
    sweep = sweep_of(tmp_path, "tam")
    folder, name = Storage.open(tmp_path).child("tam"), sweep.trajectories[0].name
    ledger = Ledger(folder, name)
    for round in range(3):
        ledger.append(record(round), CIRCUMSTANCES, state=b"weights")
    part = tmp_path / "tam" / "ledger" / name.trajectory_id / "round-00002.parquet"
    part.write_bytes(b"")
    ledger = Ledger(folder, name)
    with pytest.warns(DamageWarning, match="round 2 runs again, and so do those after it$"):
        assert len(ledger.load()[0]) == 2, "a learner that starts afresh needs no state"
    ledger = Ledger(folder, name)
    with pytest.warns(DamageWarning, match="since only the last weights are kept, those before it$"):
        assert ledger.load(carried=True) == ([], None)
    for round in range(3):
        ledger.append(record(round), CIRCUMSTANCES, state=b"weights")
    ledger.finish()
    assert len(load_results(folder)) == 3


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
@pytest.mark.parametrize("file", ["sweep.json", "spaces.json"])
def test_damaged_json_is_named(tmp_path: Path, file: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sweep_of(tmp_path, "tam"))
    (tmp_path / "tam" / file).write_bytes(content)
    for name in ("report", "verify") if file == "sweep.json" else ("report",):
        code, said = command(name, tmp_path / "tam", monkeypatch=monkeypatch)
        assert code == 2
        assert f"{tmp_path / 'tam' / file} is damaged" in said
        assert "`ray-al run` writes it anew" in said


def test_broken_epochs_are_named(tmp_path: Path) -> None:
    folder = fill(sweep_of(tmp_path, "tam"))
    folder.write("epochs/x/round-00000.parquet", b"junk!")
    with pytest.raises(DamagedFile, match=r"epochs/x/round-00000\.parquet is damaged"):
        load_epochs(folder)


def test_the_folder_of_all_sweeps_is_not_that_of_one(tmp_path: Path) -> None:
    fill(sweep_of(tmp_path, "tam"))
    for load in (load_results, load_epochs):
        with pytest.raises(FileNotFoundError, match=f"'{tmp_path}' is not a sweep's folder"):
            load(tmp_path)
