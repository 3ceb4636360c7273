"""kill -9 of every part, at real moments of real runs: nothing is lost and nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.kills import Sweep, assert_same_results, run, run_and_kill, write_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = write_sweep(folder, folder / "runs")
    done = run(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    return sweep.folder


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return write_sweep(tmp_path, tmp_path / "runs")


@pytest.mark.parametrize("victim", ["trial", "scorer", "neighbors", "store"])
def test_a_killed_part_does_not_even_end_the_run(sweep: Sweep, undisturbed: Path, victim: str) -> None:
    assert run_and_kill(sweep, victim, after_rounds=20) == (0, True), sweep.file.with_suffix(".log").read_text()
    assert_same_results(sweep.folder, undisturbed)


@pytest.mark.parametrize("victim", ["driver", "runtime"])
def test_the_same_command_goes_on_after_a_killed_run(sweep: Sweep, undisturbed: Path, victim: str) -> None:
    code, killed = run_and_kill(sweep, victim, after_rounds=20)
    assert killed
    assert code != 0
    again = run(sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_same_results(sweep.folder, undisturbed)


def test_one_trial_at_a_time_gives_the_same_results(sweep: Sweep, undisturbed: Path) -> None:
    done = run(sweep, "--set", "resources.trial.cpus=1")  # two cores: one for the scorer, one trial
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_results(sweep.folder, undisturbed)
