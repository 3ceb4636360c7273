"""The process of the command: what it leaves to the shell, and to whoever stops it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ray_al.cluster import sweep as running
from ray_al.config import parse_sweep


def shell(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m ray_al {words}"
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version", 0),
        ("--version >&-", 0),  # no standard output
        ("--version 2>&-", 0),
        ("plan missing.yaml", 2),
        ("plan missing.yaml 2>&-", 2),
        ("nonsense", 2),
    ],
)
def test_exit_codes(words: str, code: int, tmp_path: Path) -> None:
    ended = shell(words, tmp_path)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


def test_output_reaches_pipes_and_end_handlers_run(tmp_path: Path) -> None:
    assert shell("--help | tail -n 3 | wc -l", tmp_path).stdout.strip() == "3"
    (tmp_path / "own.py").write_text("import atexit, sys\natexit.register(print, 'bye')\nsys.exit('no such GPU')\n")
    (tmp_path / "x.yaml").write_text(
        "name: x\naxes: {dataset: [digits], learner: [logreg], strategy: ['own:S'], seed: 1}\n"
        "protocol: {initial: 10, batch: 5, rounds: 3}\n"
    )
    ended = shell("plan x.yaml", tmp_path)
    assert ended.returncode == 1
    assert "no such GPU" in ended.stderr
    assert ended.stdout.endswith("bye\n")


def test_a_run_that_is_stopped_while_its_report_is_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_al.cluster.run import Run

    sweep = parse_sweep(
        {
            "name": "x",
            "storage": str(tmp_path),
            "axes": {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2},
            "protocol": {"initial": 10, "batch": 5, "rounds": 3},
        }
    )
    monkeypatch.setattr(running, "finished", lambda *_: set(sweep.by_id))  # nothing that needs a cluster
    monkeypatch.setattr(Run, "go", lambda run: running.Outcome(2, 2, {}, False, 1.0, 1.0))

    def interrupted() -> None:
        raise KeyboardInterrupt

    ended = running.run_sweep(sweep, Console(), at_end=interrupted)
    assert (ended.done, ended.total, ended.stopped) == (2, 2, True)
    assert not running.run_sweep(sweep, Console()).stopped
