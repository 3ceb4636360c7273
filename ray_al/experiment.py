"""A checked sweep: its trajectories, with everything that decides their numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ray_al.core.protocol import Protocol
from ray_al.data.datasets import Dataset
from ray_al.data.spaces import SpaceSpec
from ray_al.method import Method
from ray_al.methods import find, restriction_of
from ray_al.results.schema import TrajectoryName
from ray_al.sweep_file import ResourcesSection


@dataclass(frozen=True)
class Choice:
    """A strategy or learner with all its arguments."""

    kind: str
    name: str
    values: Mapping[str, Any]
    label: str

    @property
    def method(self) -> Method:
        """Its row of the table; a strategy restricted to candidates needs what these need, too."""
        own = find(self.kind, self.name)
        if self.candidates is None:
            return own
        theirs = self.candidates.method
        return dataclasses.replace(
            own,
            light=own.light and theirs.light,
            neighbor_index=own.neighbor_index or theirs.neighbor_index,
            reads=tuple(dict.fromkeys([*own.reads, *theirs.reads])),
        )

    @property
    def candidates(self) -> Choice | None:
        """What a strategy is restricted to, if it is."""
        found = restriction_of(self.name, self.values) if self.kind == "strategy" else None
        if found is None:
            return None
        values = {key: value for key, value in found.items() if key != "name"}
        return Choice("candidates", found["name"], values, self.label)


@dataclass(frozen=True)
class TrajectoryConfig:
    """One cell of the grid, ready to run. `spaces` are the names it reads, its default space first."""

    name: TrajectoryName
    dataset: int  # index into Sweep.datasets
    learner: Choice
    strategy: Choice
    protocol: Protocol
    seed: int
    spaces: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.name.trajectory_id

    @property
    def light(self) -> bool:
        """Whether it mostly waits for services, so that threads of one process can run several."""
        return self.learner.method.served and self.strategy.method.light

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrajectoryConfig:
        raw = json.loads(text)
        raw |= {kind: Choice(**raw[kind]) for kind in ("learner", "strategy")}
        protocol = Protocol(**raw["protocol"] | {"budgets": tuple(raw["protocol"]["budgets"])})
        raw |= {"name": TrajectoryName(**raw["name"]), "protocol": protocol}
        return cls(**raw | {"spaces": tuple(raw["spaces"])})


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its datasets are loaded, its grid is written out, every id is known."""

    name: str
    storage: str
    resources: ResourcesSection
    datasets: tuple[Dataset, ...]
    spaces: tuple[Mapping[str, SpaceSpec], ...]  # per dataset: every space that some trajectory reads
    trajectories: tuple[TrajectoryConfig, ...]
    raw: Mapping[str, Any] = field(repr=False)  # the file with overrides applied, to be stored beside the results
    share_fits: bool = True  # first fits that several trajectories need are done once; changes no result

    @cached_property
    def by_id(self) -> dict[str, TrajectoryConfig]:
        return {t.id: t for t in self.trajectories}
