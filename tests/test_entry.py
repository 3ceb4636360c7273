"""The process of the command: what it leaves to the shell, and to whoever stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ray_al.cluster import run as module
from ray_al.cluster import sweep as running
from ray_al.cluster.run import Run
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.results.dataset import LedgerIndex


def shell(words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command, env = f"{sys.executable} -m ray_al {words}", os.environ | variables
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False
    )


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


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", "", "²"])
def test_a_number_of_kernel_threads_that_is_none_is_refused_at_once(threads: str, tmp_path: Path) -> None:
    ended = shell("list", tmp_path, RAY_AL_THREADS=threads)
    assert ended.returncode == 2
    assert ended.stderr == f"error: RAY_AL_THREADS is {threads!r}; it must be a positive integer\n"


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


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """One whose trajectories are all finished: it needs no cluster."""
    sweep = parse_sweep(
        {
            "name": "x",
            "storage": str(tmp_path),
            "axes": {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 2},
            "protocol": {"initial": 10, "batch": 5, "rounds": 3},
        }
    )
    monkeypatch.setattr(running, "finished", lambda *_: set(sweep.by_id))
    return sweep


def test_a_run_that_is_stopped_while_its_report_is_written_says_so(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "go", lambda run: running.Outcome(2, 2, {}, False, 1.0, 1.0))

    def interrupted() -> None:
        raise KeyboardInterrupt

    ended = running.run_sweep(sweep, Console(), at_end=interrupted)
    assert (ended.done, ended.total, ended.stopped) == (2, 2, True)
    assert not running.run_sweep(sweep, Console()).stopped


def test_a_run_that_is_stopped_while_results_are_compacted_says_what_is_done(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = LedgerIndex(frozenset(t.id for t in sweep.trajectories))
    monkeypatch.setattr(module, "index", lambda *_: index)
    monkeypatch.setattr(module, "adopt", lambda *_: 0)
    monkeypatch.setattr(module, "compact", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    ended = running.run_sweep(sweep, Console())
    assert (ended.done, ended.total, ended.stopped) == (2, 2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_of_the_trials_ends_a_run_as_one_within(
    number: signal.Signals, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(run: Run) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "go", go)
    ran = []
    before = signal.signal(number, lambda *_: ran.append("another handler"))  # as Ray's, which ends the process
    try:
        assert running.run_sweep(sweep, Console()).stopped
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
    finally:
        signal.signal(number, before)
    assert not ran
