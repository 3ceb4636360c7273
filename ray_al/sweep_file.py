"""Sweep files: strict YAML, overrides, and the shape of every section. What names mean is checked in `config`."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
AXES = ("dataset", "learner", "strategy", "protocol", "seed")  # in the order of the grid


class ConfigError(ValueError):
    """Everything that is wrong with a sweep, one message each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(self.faults))


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AxesSection(Strict):
    dataset: list[str | dict[str, Any]] = Field(min_length=1)
    learner: list[str | dict[str, Any]] = Field(min_length=1)
    strategy: list[str | dict[str, Any]] = Field(min_length=1)
    seed: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(min_length=1, max_length=1_000_000)


class ProtocolSection(Strict):
    initial: Annotated[int, Field(ge=0, le=1_000_000_000)] = 10
    balanced: bool = True
    batch: Count = 10
    rounds: Annotated[int, Field(ge=1, le=99_999)] = 10
    budgets: Annotated[tuple[Count, ...], Field(min_length=1, max_length=99_999, strict=False)] | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        others = sorted({"initial", "balanced", "batch", "rounds"} & self.model_fields_set)
        if self.budgets and others:
            raise ValueError(f"budgets are one-shot draws, a model each; leave out {', '.join(others)}")
        if self.budgets and list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets must ascend, got {list(self.budgets)}")
        return self


class TrialResources(Strict):
    cpus: Annotated[float, Field(gt=0, le=100_000)] | None = None
    gpus: Annotated[float, Field(ge=0, le=100_000)] = 0
    together: Annotated[int, Field(ge=1, le=64)] = 16


class ScorerResources(Strict):
    cpus: Annotated[float, Field(gt=0, le=100_000)] | None = None
    gpus: Annotated[float, Field(ge=0, le=1)] = 0


class ResourcesSection(Strict):
    trial: TrialResources = TrialResources()
    scorers: Annotated[int, Field(ge=1, le=1024)] = 1
    scorer: ScorerResources = ScorerResources()
    retries: Annotated[int, Field(ge=0, le=100)] = 2


class SweepFile(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    storage: str = Field(default="runs", min_length=1)
    download: bool = False
    share_fits: bool = True
    axes: AxesSection
    protocol: list[ProtocolSection] = Field(default=[ProtocolSection()], min_length=1)
    spaces: dict[str, dict[str, Any]] = {}
    exclude: list[dict[str, Any]] = []
    zip: list[list[str]] = []
    resources: ResourcesSection = ResourcesSection()
    smoke: dict[str, Any] = {}


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses repeated keys and reads 1e-3 as the number it looks like."""

    repeated: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                continue
            if key in seen:
                self.repeated.append(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse one YAML mapping.

    Raises:
        ConfigError: a syntax error, repeated keys (all of them), or something other than a mapping.
    """
    loader = _Loader(text)
    loader.repeated = []
    try:
        raw = loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError([f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    finally:
        loader.dispose()
    if loader.repeated:
        raise ConfigError([f"{source} {fault}" for fault in loader.repeated])
    if not isinstance(raw, dict):
        raise ConfigError([f"{source}: a sweep file is a mapping with the keys name, axes, protocol, ..."])
    return raw


def read_sweep_file(path: Path, sets: Sequence[str] = (), smoke: bool = False) -> dict[str, Any]:
    """A sweep file as a mapping, its `smoke` block (named `<name>-smoke` then) and `a.b=c` overrides applied."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"cannot read the sweep file {str(path)!r}: {reason}"]) from None
    raw = load_yaml(text, path.name)
    if smoke:
        if not isinstance(raw.get("smoke"), dict) or not raw["smoke"]:
            raise ConfigError([f"{path.name} has no smoke block; --smoke needs one, e.g. smoke: {{axes: {{seed: 1}}}}"])
        raw = merge({k: v for k, v in raw.items() if k != "smoke"}, raw["smoke"])
        raw["name"] = f"{raw.get('name')}-smoke"
    return override(raw, sets)


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` on top: mappings are merged, everything else is replaced."""
    out = dict(base)
    for key, value in patch.items():
        old = out.get(key)
        if isinstance(old, list) and key == "protocol" and isinstance(value, dict):
            out[key] = [merge(item, value) if isinstance(item, dict) else item for item in old]
        else:
            out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def override(raw: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` overrides; values are YAML."""
    out = copy.deepcopy(dict(raw))
    faults = []
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            faults.append(f"--set {text!r}: write it as key.key=value, e.g. --set axes.seed=50")
            continue
        try:
            parsed = load_yaml(f"v: {value}", f"--set {path}")["v"]
        except ConfigError as error:
            faults += error.faults
            continue
        patch: Any = parsed
        for key in reversed(path.strip().split(".")):
            patch = {key: patch}
        out = merge(out, patch)
    if faults:
        raise ConfigError(faults)
    return out


def normalize(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Write out the short forms: one value for a list of one, `seed: n` for 0..n-1, one protocol for a list."""
    out = dict(raw)
    if isinstance(out.get("protocol"), dict):
        out["protocol"] = [out["protocol"]]
    if isinstance(out.get("axes"), dict):
        axes = {k: [v] if isinstance(v, str | dict) else v for k, v in out["axes"].items()}
        seed = axes.setdefault("seed", 5)
        if isinstance(seed, int) and not isinstance(seed, bool) and 1 <= seed <= 1_000_000:
            axes["seed"] = list(range(seed))
        out["axes"] = axes
    return out


def shape_faults(raw: Mapping[str, Any]) -> tuple[SweepFile | None, list[str]]:
    """Check the shape of a normalized file: (the file, or None; one message per fault)."""
    seed = raw.get("axes", {}).get("seed") if isinstance(raw.get("axes"), dict) else None
    if seed is not None and not isinstance(seed, list):
        faults = [f"axes.seed: give a number of seeds from 1 to 1000000, or a list of seeds, got {seed!r}"]
        patched = {**raw, "axes": {**raw["axes"], "seed": [0]}}
        return None, faults + shape_faults(patched)[1]
    try:
        return SweepFile.model_validate(raw), []
    except ValidationError as error:
        faults = [_message(e) for e in error.errors()]
        return _usable({str(e["loc"][0]) for e in error.errors()}, raw), faults


def _usable(faulty: set[str], raw: Mapping[str, Any]) -> SweepFile | None:
    """The file without its faulty sections, so that the rest can be checked, too; None when the grid is among them."""
    if faulty & {"axes", "protocol", "exclude", "zip"}:
        return None
    rest = {key: value for key, value in raw.items() if key not in faulty}
    try:
        return SweepFile.model_validate({"name": "unnamed", **rest})
    except ValidationError:
        return None


def _message(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if part not in ("str", "dict[str,any]"))
    if error["type"] == "missing":
        return f"{where}: missing"
    if error["loc"][-1] in ("str", "dict[str,any]"):  # neither of the two: one fault, said once
        return f"{where}: give a name, or a mapping with a name and options, got {error['input']!r}"
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        return f"{where}: unknown key{hint} known: {', '.join(known)}"
    if error["type"] == "string_pattern_mismatch":
        return f"{where}: use letters, digits, '.', '_' and '-' (at most 100), got {error['input']!r}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _keys_at(location: Sequence[Any]) -> list[str]:
    section: Any = SweepFile
    children = {"axes": AxesSection, "protocol": ProtocolSection, "resources": ResourcesSection}
    children |= {"trial": TrialResources, "scorer": ScorerResources}
    for part in location:
        section = children.get(part, section)
    return list(section.model_fields)
