"""From a sweep file to a checked sweep. Everything that can be known before a run is checked, all faults together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ray_al.data.datasets import DataError, Dataset, load_dataset, parse_dataset
from ray_al.data.sources import find_source
from ray_al.data.spaces import SpaceSpec, parse_spaces
from ray_al.experiment import Choice, Sweep
from ray_al.grid import Grid, excluded, protocol_of
from ray_al.methods import resolve
from ray_al.sweep_file import ConfigError, ProtocolSection, normalize, read_sweep_file, shape_faults

__all__ = ["ConfigError", "Sweep", "load_sweep", "parse_sweep"]

RESERVED_NAMES = ("artifacts",)


def load_sweep(path: str | Path, sets: Sequence[str] = (), smoke: bool = False) -> Sweep:
    """Read and check a sweep file and load its datasets.

    Raises:
        ConfigError: with every fault found.
    """
    return parse_sweep(read_sweep_file(Path(path), sets, smoke))


def parse_sweep(mapping: Mapping[str, Any]) -> Sweep:
    """Check a sweep given as a mapping; see `load_sweep`."""
    raw = normalize(mapping)
    file, faults = shape_faults(raw)
    axes = raw["axes"] if isinstance(raw.get("axes"), dict) else {}
    learners = _choices("learner", axes.get("learner"), faults)
    strategies = _choices("strategy", axes.get("strategy"), faults)
    datasets = _datasets(axes.get("dataset"), raw.get("download") is True, faults)
    if raw.get("name") in RESERVED_NAMES:
        faults.append(f"name: {raw['name']!r} is reserved for what sweeps share; choose another")
    specs = _space_definitions(raw.get("spaces"), faults)
    protocols = file.protocol if file else _protocols(raw.get("protocol"))
    for dataset in datasets:
        faults += [fault for p in protocols for fault in _budget_faults(dataset, p)]
    rules = file.exclude if file else []
    for learner, strategy in itertools.product(learners, strategies):
        if not excluded(rules, {"learner": learner, "strategy": strategy}):
            faults += _head_faults(learner, strategy)
    if any(p.initial == 0 for p in protocols):
        faults += [
            f"strategy {s.label!r} needs a model to choose; with initial: 0 the strategy chooses the first batch"
            for s in strategies
            if not s.method.cold_start
        ]
    if file is None:
        raise ConfigError(faults)
    return Grid(file, raw, datasets, learners, strategies, specs, faults).sweep()


def _choices(kind: str, values: Any, faults: list[str]) -> list[Choice]:
    """Resolve the entries of a strategy or learner axis; what is wrong goes to `faults`."""
    found = []
    for value in values if isinstance(values, list) else []:
        options = dict(value) if isinstance(value, dict) else {"name": value}
        name, label = options.pop("name", None), options.pop("label", None)
        if not isinstance(name, str):
            if isinstance(value, dict):
                faults.append(f"axes.{kind}: an entry needs a name, e.g. {{name: random}}, got {value!r}")
            continue
        if label is not None and not isinstance(label, str):
            faults.append(f"axes.{kind}: the label of {name} is a text, got {label!r}")
        _, values_, wrong = resolve(kind, name, options)
        faults += wrong
        if not wrong:
            shown = ",".join(f"{k}={v}" for k, v in options.items())
            found.append(Choice(kind, name, values_, str(label or (f"{name}({shown})" if shown else name))))
    return found


def _datasets(values: Any, download: bool, faults: list[str]) -> list[Dataset]:
    found = []
    for value in values if isinstance(values, list) else []:
        if isinstance(value, str | dict):
            try:
                found.append(load_dataset(parse_dataset(_opt_in(value, download), "axes.dataset")))
            except DataError as error:
                faults += error.faults
    return found


def _opt_in(value: str | dict[str, Any], download: bool) -> str | dict[str, Any]:
    """The sweep's `download: true` is said once for all datasets that can be downloaded."""
    entry = {"name": value} if isinstance(value, str) else value
    source = find_source(str(entry.get("name")))
    return {"download": True, **entry} if download and source and "download" in source.options else value


def _space_definitions(values: Any, faults: list[str]) -> dict[str, SpaceSpec]:
    try:
        return parse_spaces(values) if isinstance(values, dict) else {}
    except DataError as error:
        faults += error.faults
        return {}


def _protocols(values: Any) -> list[ProtocolSection]:
    """The entries of a protocol list that are well formed, for checks that go on although another section is not."""
    found = []
    for value in values if isinstance(values, list) else []:
        try:
            found.append(ProtocolSection.model_validate(value))
        except ValidationError:
            continue
    return found


def _budget_faults(dataset: Dataset, section: ProtocolSection) -> list[str]:
    protocol, size = protocol_of(section), len(dataset.pool_labels)
    if section.batch > size:
        return [f"protocol.batch: {section.batch:,} is more than the pool of {dataset.label!r} ({size:,} items)"]
    if protocol.total_labels > size:
        return [
            f"protocol {protocol.label!r} asks for {protocol.total_labels:,} labels, "
            f"the pool of {dataset.label!r} has {size:,} items"
        ]
    smallest, share = int(np.bincount(dataset.pool_labels).min()), -(-protocol.initial // dataset.classes)
    if protocol.balanced and share > smallest:
        return [
            f"protocol.initial: {protocol.initial:,} balanced labels take up to {share:,} of each class; the smallest "
            f"class of {dataset.label!r} has {smallest:,} (balanced: false draws at random)"
        ]
    return []


def _head_faults(learner: Choice, strategy: Choice) -> list[str]:
    missing = strategy.method.needs - learner.method.heads
    if not missing:
        return []
    return [
        f"strategy {strategy.label!r} needs the head {', '.join(sorted(missing))}, which learner {learner.label!r} "
        f"does not offer (it has: {', '.join(sorted(learner.method.heads))}); exclude the pair, or change one"
    ]
