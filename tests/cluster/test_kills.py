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


@pytest.mark.parametrize("victims", [{"trial": 15, "neighbors": 30}, {"scorer": 15, "store": 30}], ids=" and ".join)
def test_killed_parts_do_not_even_end_the_run(sweep: Sweep, undisturbed: Path, victims: dict[str, int]) -> None:
    assert run_and_kill(sweep, victims) == (0, list(victims)), sweep.file.with_suffix(".log").read_text()
    assert_same_results(sweep.folder, undisturbed)


def test_the_same_command_goes_on_after_killed_runs(sweep: Sweep, undisturbed: Path) -> None:
    for victim, rounds in (("runtime", 10), ("driver", 25)):  # trials outlive the driver for a while
        code, killed = run_and_kill(sweep, {victim: rounds})
        assert killed, sweep.file.with_suffix(".log").read_text()
        assert code != 0
    # As many trials at a time as before, or one (two cores: one for the scorer, one trial), give the same.
    again = run(sweep, "--set", "resources.trial.cpus=1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert_same_results(sweep.folder, undisturbed)
