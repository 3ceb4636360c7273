"""The examples of docs/sweeps.md load, copied as they are but for data that only their reader has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_al.config import load_sweep, parse_sweep
from ray_al.sweep_file import ProtocolSection, ResourcesSection, SweepFile

PAGE = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
SWEEP, STRATEGIES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("smoke", [False, True])
def test_the_whole_sweep_loads(tmp_path: Path, smoke: bool) -> None:
    named = "dataset: [mnist, {name: cifar10, limit: 10000}]"
    assert named in SWEEP
    path = tmp_path / "x.yaml"
    path.write_text(SWEEP.replace(named, "dataset: [digits, {name: digits, limit: 1000}]"))
    sweep = load_sweep(path, smoke=smoke)
    chosen = {(t.name.strategy, t.name.protocol) for t in sweep.trajectories}
    protocols = {"10+1x10"} if smoke else {"10+19x10", "cold", "draws"}
    typiclust = "typiclust(neighbors=10)"
    found = {(s, p) for s in ("random", typiclust) for p in protocols} | {("margin", min(protocols)), ("full", "all")}
    assert chosen == found
    assert len(sweep.trajectories) == len(found) * 2 * 2 * (1 if smoke else 10)


def test_the_strategies_load() -> None:
    axes: dict[str, Any] = {"dataset": "digits", "learner": "logreg", "seed": 1}
    sweep = parse_sweep({"name": "x", "axes": axes | yaml.safe_load(STRATEGIES)})
    shown = re.search(r"shown as (\S+)", STRATEGIES)
    assert shown
    assert [t.name.strategy for t in sweep.trajectories] == [shown[1], "badge-seals"]


def test_the_defaults_are_those_of_the_page() -> None:
    rows = dict(re.findall(r"^\| (`(?:storage|seed|protocol|resources|download)`.*?) \| (.*) \|$", PAGE, re.MULTILINE))
    sweep = parse_sweep({"name": "x", "axes": {"dataset": "digits", "learner": "logreg", "strategy": "random"}})
    assert rows["`storage`"] == f"`{sweep.storage}`"
    seeds = [t.seed for t in sweep.trajectories]
    assert rows["`seed`"] == f"{len(seeds)}: the seeds {seeds[0]}..{seeds[-1]}"
    written = {key: yaml.safe_load(value.split("`")[1]) for key, value in rows.items() if "{" in value}
    plain = ProtocolSection().model_dump(exclude={"budgets", "label"})
    assert written["`protocol`, or a part of it"] == plain
    assert written["`resources`"] == ResourcesSection().model_dump(exclude={"trial": {"cpus", "gpus"}, "scorer": True})
    fields = SweepFile.model_fields
    said = f"`{fields['download'].default}`, `{fields['share_fits'].default}`".lower()
    assert rows["`download`, `share_fits`"] == said
