"""What the command line prints without Ray."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ray_al.cli import app

ONE = """
name: one
axes: {dataset: digits, learner: logreg, strategy: random, seed: 1}
"""


def test_the_version_of_the_package() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, f"{importlib.metadata.version('ray-al')}\n")


def test_without_a_command_there_is_help() -> None:
    answer = CliRunner().invoke(app, [])
    assert "Grids of active-learning experiments on Ray." in answer.output
    assert "features" in answer.output


@pytest.mark.parametrize(("seeds", "said"), [("1", "one: 1 trajectory: 1 open"), ("2", "one: 2 trajectories: 2 open")])
def test_a_plan_counts_trajectories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(ONE)
    answer = CliRunner().invoke(app, ["plan", "x.yaml", "--set", f"axes.seed={seeds}"])
    assert answer.output.strip().endswith(said)
