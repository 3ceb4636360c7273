"""What a sweep file says of a dataset, checked without reading any data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray_al.data.faults import DataError, choices, shown, text
from ray_al.data.sources import DATASETS, data_names, find_source, is_python_path
from ray_al.data.subsets import OPTION_CHECKS, Options


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as a sweep names it. Equal and of equal hash when all but the display name is equal."""

    name: str
    settings: str = "{}"  # the source's own options, as canonical JSON
    options: Options = field(default_factory=Options)
    label: str = field(default="", compare=False)

    def to_mapping(self) -> dict[str, Any]:
        """The entry that parses back to this spec."""
        return {"name": self.name, "label": self.label, **json.loads(self.settings), **self.options.given()}


def parse_dataset(value: str | Mapping[str, Any], where: str = "dataset") -> DatasetSpec:
    """Check a dataset entry of a sweep file; `where` names its place in messages. Reads no data.

    Raises:
        DataError: with every fault of the entry.
    """
    entry = {"name": value} if isinstance(value, str) else value
    if not isinstance(entry, Mapping):
        raise DataError([f"{where}: a dataset is a name or a mapping with `name:`, not {shown(value)}"])
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise DataError([f"{where}: the dataset has no name{choices(name, [*DATASETS, *data_names()])}"])
    source = find_source(name)
    if source is None:
        known = choices(name, [*DATASETS, *data_names()])
        raise DataError(
            [f"{where}: unknown dataset {shown(name)}{known}; or an own function as 'package.module:function'"]
        )
    checks = {**source.options, **OPTION_CHECKS, "label": text}
    settings: dict[str, Any] = {}
    common: dict[str, Any] = {}
    faults = [f"{where}: {key} is missing for dataset {name!r}" for key in source.required if key not in entry]
    for key, given in entry.items():
        if key == "name":
            continue
        if key not in checks and not (is_python_path(name) and isinstance(key, str)):
            faults.append(f"{where}: unknown option {shown(key)} for dataset {name!r}{choices(key, checks)}")
        elif fault := checks[key](given) if key in checks else _plain(given):
            faults.append(f"{where}: {key} is {shown(given)}; it {fault}")
        elif key in OPTION_CHECKS:
            common[key] = tuple(given) if isinstance(given, list) else given
        elif key != "label":
            settings[key] = given
    if not faults:
        faults += [f"{where}: {fault}" for fault in source.check(settings)]
    if faults:
        raise DataError(faults)
    options = Options(**common)
    spec = DatasetSpec(name, json.dumps(settings, sort_keys=True, separators=(",", ":")), options)
    return replace(spec, label=entry.get("label") or _display_name(name, settings, options))


def _plain(value: Any) -> str | None:
    try:
        json.dumps(value, allow_nan=False, sort_keys=True)  # sorted as later: keys of several types cannot be
    except (TypeError, ValueError, RecursionError):
        return "must be a plain value (text, number, true or false, list, mapping)"
    return None


def _display_name(name: str, settings: Mapping[str, Any], options: Options) -> str:
    """A short name that differs when the options differ: `mnist[classes=5+7,limit=1000]`."""
    stem = (
        Path(settings[key]).stem
        if (key := {"arrays": "features", "imagefolder": "path", "embeddings": "path"}.get(name))
        else name
    )
    stem = name.partition(":")[2] if is_python_path(name) else stem
    parts = [
        f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in options.given().items()
    ]
    return f"{stem}[{','.join(parts)}]" if parts else stem
