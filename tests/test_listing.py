"""`ray-al list`: every name, every option with its default, and no name broken at the end of a line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ray_al.cli import app
from ray_al.data.sources import DATASETS
from ray_al.data.space_definitions import METHODS
from ray_al.data.spaces import BUILT_IN
from ray_al.data.subsets import OPTION_CHECKS
from ray_al.listing import listing
from ray_al.methods import KINDS


@pytest.fixture(params=[80, 200])
def words(request: pytest.FixtureRequest) -> list[str]:
    out = Console(file=io.StringIO(), width=request.param)
    for part in listing():
        out.print(part, highlight=False)
    return [word.rstrip(",") for word in out.file.getvalue().split()]


def test_every_name_and_option_is_there_in_one_piece(words: list[str]) -> None:
    names = {word.partition("=")[0].rstrip("}") for word in words}
    for rows in KINDS.values():
        assert set(rows) <= names
        assert {option for row in rows.values() for option in row.options} <= names
    assert {*DATASETS, *(option for source in DATASETS.values() for option in source.options)} <= names
    assert {*METHODS, *(option for checks, _ in METHODS.values() for option in checks)} <= names
    assert {*BUILT_IN, *OPTION_CHECKS, "label"} <= names


def test_defaults_are_written_as_in_a_sweep_file(words: list[str]) -> None:
    shown = ("neighbors=20", "space=null", "pseudo_sampling=with_replacement", "decay=0.00033", "balanced=true")
    assert {*shown, "download=false", "size=64", "imbalance=1.0", "kl_mode=book", "whiten=false"} <= set(words)
    assert {"path", "dims", "pool"} <= set(words)  # must be given


def test_the_command_prints_it() -> None:
    answer = CliRunner().invoke(app, ["list"])
    assert answer.exit_code == 0, answer.output
    assert "min_cluster_size=5" in answer.output
