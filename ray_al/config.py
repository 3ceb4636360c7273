"""From a sweep file to a checked sweep. Everything that can be known before a run is checked, all faults together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_al.cells import expand, name_faults
from ray_al.data.datasets import DataError, Dataset, load_dataset, parse_dataset
from ray_al.data.sources import find_source
from ray_al.data.space_definitions import parse_spaces
from ray_al.data.spaces import SpaceSpec
from ray_al.experiment import Choice, Sweep, TrajectoryConfig
from ray_al.grid import SpaceBook, cell_faults, trajectory_of, twin_faults
from ray_al.methods import resolve
from ray_al.sweep_file import ConfigError, merge, normalize, read_sweep_file, shape_faults

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
    faults += _smoke_faults(mapping)
    axes = raw["axes"] if isinstance(raw.get("axes"), dict) else {}
    learners = _choices("learner", axes.get("learner"), faults)
    strategies = _choices("strategy", axes.get("strategy"), faults)
    datasets = _datasets(axes.get("dataset"), raw.get("download") is True, faults)
    faults += twin_faults(datasets)
    if raw.get("name") in RESERVED_NAMES:
        faults.append(f"name: {raw['name']!r} is reserved for what sweeps share; choose another")
    book = SpaceBook(_space_definitions(raw.get("spaces"), faults), faults)
    if file is None:
        raise ConfigError(faults)
    cells = expand(file, datasets, learners, strategies, faults)
    faults += cell_faults(cells) + name_faults(cells)
    trajectories: dict[str, TrajectoryConfig] = {}
    for cell in cells:
        made = trajectory_of(cell, datasets.index(cell.dataset), file.name, book)
        if made is None:
            continue
        twin = trajectories.setdefault(made.id, made)
        if twin is not made and not cell.strategy.method.whole_pool:  # `full` is one run under every protocol
            faults.append(
                f"{twin.name.strategy!r} with {twin.name.learner!r} and {made.name.strategy!r} with "
                f"{made.name.learner!r} are the same experiment; remove one"
            )
    if faults:
        raise ConfigError(faults)
    spaces = tuple(book.used(dataset) for dataset in datasets)
    found = tuple(trajectories.values())
    return Sweep(file.name, file.storage, file.resources, tuple(datasets), spaces, found, raw, file.share_fits)


def _smoke_faults(mapping: Mapping[str, Any]) -> list[str]:
    """A smoke block is checked with every run, not only when it is needed."""
    smoke = mapping.get("smoke")
    if not isinstance(smoke, dict) or not smoke:
        return []
    plain = {key: value for key, value in mapping.items() if key != "smoke"}
    known = shape_faults(normalize(plain))[1]
    return [f"smoke: {fault}" for fault in shape_faults(normalize(merge(plain, smoke)))[1] if fault not in known]


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
        arguments, wrong = resolve(kind, name, options)
        faults += wrong
        if not wrong:
            shown = ",".join(f"{k}={_shown(v)}" for k, v in options.items())
            found.append(Choice(kind, name, arguments, str(label or (f"{name}({shown})" if shown else name))))
    return found


def _shown(value: Any) -> str:
    """An option's value in a label; of a method with options of its own: `seals(k=100)`."""
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    inner = ",".join(f"{k}={v}" for k, v in value.items() if k != "name")
    return f"{value['name']}({inner})" if inner else str(value["name"])


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
