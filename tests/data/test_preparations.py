"""Preparations of learners: made once per content, read like a space, and made by tasks where there are GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ray_al.assemble import LocalReader, materialize, preparation_of, run_locally
from ray_al.config import parse_sweep
from ray_al.core.preparation import Preparation
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.preparations import prepared_config
from ray_al.learners.svc import Svc
from ray_al.planning import plan_tables
from ray_al.storage import Storage

BUILT: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Whitened:
    """A learner that needs the mean of the pool before its first fit."""

    shift: float = 0.0
    C: float = 1.0
    space: str = "pixels"
    heads: ClassVar[frozenset[str]] = frozenset({"probs"})

    def preparation(self, classes: int) -> Preparation | None:
        if self.shift < 0:
            return None
        return Preparation("mean", {"version": 1, "shift": self.shift, "classes": classes}, self.space, self._build)

    def _build(self, rows: np.ndarray, config: dict[str, Any]) -> dict[str, np.ndarray]:
        BUILT.append(config)
        return {"mean": rows.mean(0) + config["shift"]}

    def fit(self, labeled, assume, pool, rng):
        if (prepared := self.preparation(pool.classes)) is not None:
            mean = pool.reader.read(prepared.name, "mean")
            np.testing.assert_allclose(mean, pool.inputs(self.space).mean(0) + self.shift)
        return Svc(space=self.space, grid=False, C=self.C).fit(labeled, assume, pool, rng)


def sweep(folder: Path, *learners: dict[str, Any]):
    name = f"{__name__}:Whitened"
    return parse_sweep(
        {
            "name": "x",
            "storage": str(folder),
            "axes": {
                "dataset": [{"name": "digits", "limit": 100}],
                "learner": [{"name": name, **options} for options in learners],
                "strategy": ["random"],
                "seed": 2,
            },
            "protocol": {"initial": 10, "batch": 10, "rounds": 2},
        }
    )


@pytest.fixture(autouse=True)
def nothing_built():
    BUILT.clear()


def test_what_differs_in_other_options_alone_is_made_once(tmp_path):
    made = sweep(tmp_path, {"label": "a"}, {"C": 2.0, "label": "b"}, {"shift": 1.0}, {"shift": -1.0})
    store = ArtifactStore(Storage.open(tmp_path))
    keys = materialize(made, store, made.trajectories)[0]
    assert [config["shift"] for config in BUILT] == [0.0, 1.0]
    assert len([name for name in keys.spaces if name.startswith("mean:")]) == 2
    assert materialize(made, store, made.trajectories)[0] == keys
    assert len(BUILT) == 2
    reader = LocalReader(store, keys)
    prepared = preparation_of(keys.classes, made.trajectories[0].learner)
    np.testing.assert_allclose(reader.read(prepared.name, "mean"), reader.read("pixels", "pool").mean(0))
    assert store.has("mean", prepared_config(prepared, keys.spaces["pixels"]))
    assert not store.has("mean", prepared_config(prepared, "another artifact"))


def test_a_plan_lists_what_learners_need(tmp_path):
    made = sweep(tmp_path, {"label": "a"}, {"shift": 1.0, "label": "b"}, {"shift": -1.0, "label": "none"})

    def listed() -> dict[str, str]:
        (table,) = (table for table in plan_tables(made) if getattr(table, "title", "") == "artifacts")
        _, what, state = (list(column.cells) for column in table.columns)
        return dict(zip(what, state, strict=True))

    before = listed()
    assert set(before) == {"labels", "pixels", "mean of a", "mean of b"}
    assert set(before.values()) == {"missing: will be built"}
    materialize(made, ArtifactStore(Storage.open(tmp_path)), [made.trajectories[0]])
    assert listed() == {**dict.fromkeys(before, "there"), "mean of b": before["mean of b"]}


def test_a_trajectory_finds_its_preparation(tmp_path):
    made = sweep(tmp_path, {"shift": 2.0})
    records = [list(run_locally(made, t, Storage.open(tmp_path))) for t in made.trajectories]
    assert [len(rounds) for rounds in records] == [2, 2]
    assert len(BUILT) == 1


def test_who_prepares_may_be_another(tmp_path):
    made = sweep(tmp_path, {})
    asked = []

    def elsewhere(store, keys, learner):
        asked.append(learner.name)
        return "mean:there", "artifact-of-another-machine"

    keys = materialize(made, ArtifactStore(Storage.open(tmp_path)), made.trajectories, elsewhere)[0]
    assert asked == [f"{__name__}:Whitened"]
    assert keys.spaces["mean:there"] == "artifact-of-another-machine"
    assert not BUILT
