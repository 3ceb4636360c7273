"""Other people's names in what the commands print: brackets stay, and lines that are piped are whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ray_al.assemble import run_locally
from ray_al.cluster.connect import _check_address
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.planning import plan_tables, status_tables
from ray_al.results.ledger import Ledger
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError
from ray_al.verify import verify_sweep

NAMES = ("d[/x]", "l[red]", "digits[limit=300] of a name that goes well beyond a line of eighty columns, as some do")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """One finished trajectory and a failed one, in a folder with brackets."""
    data, learner, strategy = NAMES
    axes = {
        "dataset": [{"name": "digits", "limit": 300, "label": data}],
        "learner": [{"name": "logreg", "label": learner}],
        "strategy": [{"name": "random", "label": strategy}],
        "seed": 2,
    }
    raw = {"name": "x", "storage": str(tmp_path / "[bold]"), "axes": axes, "protocol": {"initial": 10, "rounds": 1}}
    sweep = parse_sweep(raw)
    folder = Storage.open(sweep.storage).child("x")
    folder.write("sweep.json", json.dumps(sweep.raw).encode())
    done, failed = sweep.trajectories
    ledger = Ledger(folder, done.name)
    for record in run_locally(sweep, done, Storage.open(tmp_path / "artifacts")):
        ledger.append(record, {})
    ledger.finish()
    Ledger(folder, failed.name).fail(0, "ValueError: [/no]", 0, {})
    return sweep


def test_verify_prints_names_as_they_are_in_one_line(sweep: Sweep) -> None:
    said = io.StringIO()
    assert verify_sweep(f"{sweep.storage}/x", 1, 0, Console(file=said, width=80)) == []
    data, learner, strategy = NAMES
    assert said.getvalue() == f"{strategy} · {data} · {learner} · seed 0: 1 rounds equal, ids and metrics\n"


def test_tables_print_names_as_they_are(sweep: Sweep) -> None:
    said = io.StringIO()
    console = Console(file=said, width=300)
    for part in [*plan_tables(sweep), *status_tables(Storage.open(sweep.storage).child("x"))]:
        console.print(part)
    for name in (*NAMES, f"{sweep.storage}/x", "ValueError: [/no]"):
        assert name in said.getvalue()


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "host:port", "host:99999", "host:-1"])
def test_an_address_that_is_none_says_what_is_wanted(address: str) -> None:
    with pytest.raises(
        ConfigError, match=f"--address: '{address}' is no address; give host:port of a head node, or auto"
    ):
        _check_address(address)
