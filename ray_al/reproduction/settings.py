"""The settings of an arm, out of the sweep file that was run: options of its learner with defaults, dataset, space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ray_al.data.faults import DataError
from ray_al.data.space_definitions import parse_space
from ray_al.methods import resolve
from ray_al.reproduction.claims import Arm, Expected
from ray_al.sweep_file import ConfigError


def settings_of(raw: Mapping[str, Any], sweep: str, arm: Arm) -> dict[str, Any]:
    """Options of the learner by their names, `strategy.<option>`, `vae.<option>` where one of them reads a VAE's space,
    `images` (a limit, or "all") and `data` (the dataset's name and other options).

    Raises:
        ConfigError: the file has no such learner, or this version of ray-al does not know its options.
    """
    axes = raw.get("axes", {})
    learner, strategy = _entry(axes.get("learner"), arm.learner), _entry(axes.get("strategy"), arm.strategy)
    if learner is None or strategy is None:
        raise ConfigError([f"{sweep}: its sweep.json does not define {arm}, of which it has results"])
    found: dict[str, Any] = {}
    for kind, entry in (("strategy", strategy), ("learner", learner)):  # the learner's space is the one that counts
        options = {key: value for key, value in entry.items() if key not in ("name", "label")}
        values, faults = resolve(kind, str(entry.get("name")), options)
        if faults:
            raise ConfigError([f"{sweep}: {fault} (results of another version?)" for fault in faults])
        vae = _vae(raw, values.get("space"))
        found |= {f"vae.{key}": value for key, value in vae.items()}
        found |= {key if kind == "learner" else f"strategy.{key}": value for key, value in values.items()}
    datasets = [entry for entry in axes.get("dataset", []) if not arm.dataset or _label(entry) == arm.dataset]
    entries = [dict(entry) if isinstance(entry, dict) else {"name": entry} for entry in datasets]
    limits = [entry["limit"] for entry in entries if entry.get("limit")]
    return found | {"images": min(limits) if limits else "all", "data": ", ".join(map(data_name, entries))}


def data_name(entry: Mapping[str, Any]) -> str:
    """The name of a dataset, its classes, and options that change what is in it."""
    classes = [str(one) for one in entry.get("classes") or []]
    plain = ("name", "classes", "label", "limit", "download")
    others = [f"{key}={value}" for key, value in sorted(entry.items()) if key not in plain]
    return " ".join([str(entry.get("name")), *classes, *others])


def _label(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return entry.get("label") or entry.get("name")


def _entry(axis: Any, label: str) -> dict[str, Any] | None:
    """The entry of an axis that is called so."""
    for entry in axis or []:
        if _label(entry) == label:
            return dict(entry) if isinstance(entry, dict) else {"name": entry}
    return None


def _vae(raw: Mapping[str, Any], space: Any) -> dict[str, Any]:
    """The settings of the auto-encoder of a space; {} of any other."""
    if not isinstance(space, str):
        return {}
    definitions = raw.get("spaces", {})
    try:
        spec = parse_space(space, definitions.get(space))
    except DataError:
        return {}
    return dataclasses.asdict(spec.vae) if spec.vae else {}


@dataclasses.dataclass(frozen=True)
class Described:
    """Settings in words, and whether they are less than the paper's, or other than the paper's."""

    text: str
    reduced: bool
    changed: bool


def describe(found: Mapping[str, Any], expected: tuple[Expected, ...], data: Sequence[str]) -> Described:
    """Compare settings with the paper's; `data` are the datasets that it may be."""
    reduced, changed = False, found["data"] not in data
    words = [f"**data {found['data']} (paper: {' or '.join(data)})**"] if changed else []
    for one in expected:
        if one.key not in found or any(found.get(key) != value for key, value in one.only.items()):
            continue
        ours = found[one.key]
        if ours == one.value:
            words += [f"{one.name} {_shown(ours)}"] if one.shown else []
            continue
        less = one.value == "all" or (_number(ours) and _number(one.value) and ours < one.value)
        reduced, changed = reduced or less, changed or not less
        theirs = f"of {_shown(one.value)}" if less else f"(paper: {_shown(one.value)})"
        words.append(f"**{one.name} {_shown(ours)} {theirs}**")
    return Described(", ".join(words), reduced, changed)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)
