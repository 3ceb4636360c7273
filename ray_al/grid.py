"""The grid of a sweep: cells, their names and their identities."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_al.core.trajectory import Protocol
from ray_al.data.datasets import DataError, Dataset
from ray_al.data.spaces import SpaceSpec, default_space, find_space, space_faults
from ray_al.experiment import Choice, Sweep, TrajectoryConfig
from ray_al.results.schema import TrajectoryName
from ray_al.sweep_file import AXES, ConfigError, ProtocolSection, SweepFile

MAX_TRAJECTORIES = 1_000_000
LOOP_VERSION = 1  # part of every identity: raise it when the loop or the initial sets change results


def protocol_of(section: ProtocolSection) -> Protocol:
    return Protocol(section.initial, section.balanced, section.batch, section.rounds)


def excluded(rules: Sequence[Mapping[str, Any]], cell: Mapping[str, Any]) -> bool:
    """Whether a rule matches a cell: each of its axes by name or label (or a list of them); seeds by value."""
    return any(all(axis in cell and _is(wanted, cell[axis]) for axis, wanted in rule.items()) for rule in rules)


def _is(wanted: Any, value: Any) -> bool:
    names: set[Any]
    if isinstance(value, ProtocolSection):
        names = {value.label or protocol_of(value).label}
    elif isinstance(value, Dataset):
        names = {value.label, value.spec.name}
    elif isinstance(value, Choice):
        names = {value.label, value.name}
    else:
        names = {value}
    return any(one in names for one in (wanted if isinstance(wanted, list) else [wanted]))


@dataclass
class Grid:
    """Writes the grid out, collecting faults as it goes."""

    file: SweepFile
    raw: Mapping[str, Any]
    datasets: list[Dataset]
    learners: list[Choice]
    strategies: list[Choice]
    specs: Mapping[str, SpaceSpec]
    faults: list[str]

    def sweep(self) -> Sweep:
        cells = self._cells()
        self._names_differ()
        if self.faults:
            raise ConfigError(self.faults)
        wanted = [self._spaces(cell["dataset"], cell["learner"], cell["strategy"]) for cell in cells]
        specs: list[dict[str, SpaceSpec]] = [dict(self.specs) for _ in self.datasets]
        keys: list[dict[str, Any]] = [{} for _ in self.datasets]
        for d, space in sorted(
            {(cell["dataset"], s) for cell, names in zip(cells, wanted, strict=True) for s in names}
        ):
            self._resolve(self.datasets[d], space, specs[d], keys[d])
        if self.faults:
            raise ConfigError(self.faults)
        trajectories: dict[str, TrajectoryConfig] = {}
        for cell, spaces in zip(cells, wanted, strict=True):
            trajectory = self._trajectory(cell, spaces, {s: keys[cell["dataset"]][s] for s in spaces})
            trajectories.setdefault(trajectory.id, trajectory)  # `full` is one experiment under every protocol
        file = self.file
        found = tuple(trajectories.values())
        return Sweep(file.name, file.storage, file.resources, tuple(self.datasets), tuple(specs), found, self.raw)

    def _resolve(self, dataset: Dataset, space: str, specs: dict[str, SpaceSpec], keys: dict[str, Any]) -> None:
        """Find what a space name means for a dataset, and check that it can be made."""
        try:
            spec = find_space(space, self.specs)
            if faults := space_faults(spec, dataset, self.specs):
                raise DataError(faults)
            specs[space], keys[space] = spec, spec.key(dataset, self.specs)
        except DataError as error:
            self.faults += error.faults

    def _cells(self) -> list[dict[str, Any]]:
        values: dict[str, list[Any]] = {
            "dataset": list(range(len(self.datasets))),
            "learner": self.learners,
            "strategy": self.strategies,
            "protocol": list(self.file.protocol),
            "seed": list(self.file.axes.seed),
        }
        groups = self._zipped(values)
        if self.faults:
            return []
        count = 1
        for group in groups:
            count *= len(values[group[0]])
        if count > MAX_TRAJECTORIES:
            self.faults.append(f"the grid has {count:,} cells, at most {MAX_TRAJECTORIES:,} are allowed")
            return []
        cells = []
        hits = [0] * len(self.file.exclude)
        for point in itertools.product(*(range(len(values[group[0]])) for group in groups)):
            cell = {axis: values[axis][i] for group, i in zip(groups, point, strict=True) for axis in group}
            matched = [k for k, rule in enumerate(self.file.exclude) if self._matches(rule, cell)]
            for k in matched:
                hits[k] += 1
            if not matched:
                cells.append(cell)
        self.faults += [f"exclude[{k}] {self.file.exclude[k]} matches no cell" for k, n in enumerate(hits) if not n]
        if not cells and not self.faults:
            self.faults.append("exclude leaves nothing to run")
        return cells

    def _zipped(self, values: Mapping[str, Sequence[Any]]) -> list[tuple[str, ...]]:
        """Axes that move together, then every other axis by itself."""
        taken: list[str] = []
        groups = []
        for group in self.file.zip:
            lengths = {axis: len(values[axis]) for axis in group if axis in values}
            if unknown := [axis for axis in group if axis not in AXES]:
                self.faults.append(f"zip: unknown axis {unknown[0]!r}; known: {', '.join(AXES)}")
            elif len(group) < 2 or len(set(group)) < len(group) or set(group) & set(taken):
                self.faults.append(f"zip: {group} must name two or more axes, each once in all groups")
            elif len(set(lengths.values())) > 1:
                self.faults.append(f"zip: axes of one group need equal lengths, got {lengths}")
            taken += group
            groups.append(tuple(group))
        return groups + [(axis,) for axis in AXES if axis not in taken]

    def _matches(self, rule: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
        named = {**cell, "dataset": self.datasets[cell["dataset"]]}
        return excluded([rule], named)

    def _spaces(self, dataset: int, learner: Choice, strategy: Choice) -> tuple[str, ...]:
        default = default_space(self.datasets[dataset]).name
        found: list[str] = []
        for choice in (learner, strategy):
            if "space" in choice.values:
                found.append(choice.values["space"] or default)
            found += choice.method.reads
        first = found[0] if found else default
        return tuple(dict.fromkeys([first, *found]))

    def _trajectory(
        self, cell: Mapping[str, Any], spaces: tuple[str, ...], keys: Mapping[str, Any]
    ) -> TrajectoryConfig:
        dataset = self.datasets[cell["dataset"]]
        strategy, learner, section = cell["strategy"], cell["learner"], cell["protocol"]
        if strategy.method.whole_pool:
            protocol, label = Protocol(0, False, len(dataset.pool_labels), 1), "all"
        else:
            protocol = Protocol(section.initial, section.balanced, section.batch, section.rounds)
            label = section.label or protocol.label
        identity = {
            "loop": LOOP_VERSION,
            "dataset": dataset.fingerprint,
            "spaces": keys,
            "learner": learner.identity(),
            "strategy": strategy.identity(),
            "protocol": vars(protocol),
            "seed": cell["seed"],
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        name = TrajectoryName(
            digest, self.file.name, dataset.label, learner.label, strategy.label, label, cell["seed"]
        )  # fmt: skip
        return TrajectoryConfig(name, cell["dataset"], learner, strategy, protocol, cell["seed"], spaces)

    def _names_differ(self) -> None:
        labels: dict[str, list[Any]] = {
            "dataset": [d.label for d in self.datasets],
            "learner": [c.label for c in self.learners],
            "strategy": [c.label for c in self.strategies],
            "protocol": [
                p.label or Protocol(p.initial, p.balanced, p.batch, p.rounds).label for p in self.file.protocol
            ],
            "seed": list(self.file.axes.seed),
        }
        zipped = {axis for group in self.file.zip for axis in group}
        for axis, names in labels.items():
            repeated = sorted({str(n) for n in names if names.count(n) > 1})
            if repeated and axis not in zipped:
                self.faults.append(f"axis {axis}: {repeated[0]!r} appears twice; remove one, or give it a label")
