"""The spaces that a sweep file defines: what their entries may say, checked without reading any data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray_al.data.faults import Check, DataError, choices, flag, shown, text, whole
from ray_al.data.files import is_file
from ray_al.data.pca import MAX_WIDTH
from ray_al.data.spaces import BUILT_IN, MAX_CODE, SpaceSpec, built_in, chain_faults
from ray_al.generative.vae import KL_MODES, VaeSettings, device_fault

_NAME = re.compile(r"[A-Za-z][\w.-]*")


def _kl_mode(value: Any) -> str | None:
    return None if value in KL_MODES else f"must be {' or '.join(KL_MODES)}"


_VAE: dict[str, Check] = {
    "dims": whole(1, MAX_CODE),
    "kl_mode": _kl_mode,
    "seed": whole(0, 2**63 - 1),
    "epochs": whole(1, 100_000),
    "batch": whole(1, 100_000),
    "device": device_fault,
}
# Methods of sweep-defined spaces: checks of their options, and which of these must be given.
METHODS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "pca": ({"of": text, "dims": whole(1, MAX_WIDTH), "whiten": flag}, ("dims",)),
    "file": ({"pool": text, "test": text}, ("pool", "test")),
    "embeddings": ({"path": text}, ("path",)),
    "vae": (_VAE, ("dims",)),
}


def parse_space(name: str, definition: Mapping[str, Any] | None = None, where: str = "space") -> SpaceSpec:
    """A built-in space (no definition), or one that a sweep defines; `where` names its place in messages.

    Raises:
        DataError: with every fault of the definition.
    """
    known = built_in(name)
    if definition is None:
        if known is None:
            raise DataError([f"{where}: unknown space {shown(name)}{choices(name, BUILT_IN)}"])
        return known
    if known is not None:
        raise DataError([f"{where}: {name!r} is built in; give the space another name"])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError([f"{where}: a space is named by letters, digits, '_', '-' and '.', not {shown(name)}"])
    given = definition.get("name") if isinstance(definition, Mapping) else definition
    if not isinstance(definition, Mapping) or not isinstance(given, str) or given not in METHODS:
        raise DataError([f"{where}: {shown(given)} is not a way to make a space{choices(given, METHODS)}"])
    method = given
    checks, required = METHODS[method]
    kind = f"{'an' if method[0] in 'aeiou' else 'a'} {method} space"
    faults = [f"{where}: {key} is missing for {kind}" for key in required if key not in definition]
    for key, value in definition.items():
        if key != "name" and key not in checks:
            faults.append(f"{where}: unknown option {shown(key)} for {kind}{choices(key, checks)}")
        elif key != "name" and (fault := checks[key](value)):
            faults.append(f"{where}: {key} is {shown(value)}; it {fault}")
        elif method == "file" and key in checks and not is_file(value):
            faults.append(f"{where}: {key} is {shown(value)}; it must be a .npy, .npz or .parquet file (or file:key)")
    if faults:
        raise DataError(faults)
    options = {key: value for key, value in definition.items() if key != "name"}
    if method == "vae":
        return SpaceSpec(name, method, dims=options["dims"], vae=VaeSettings(**options))
    return SpaceSpec(name, method, **options)


def parse_spaces(definitions: Mapping[str, Any], where: str = "spaces") -> dict[str, SpaceSpec]:
    """All spaces that a sweep defines; also checks that what they are made of exists.

    Raises:
        DataError: with every fault of every definition.
    """
    if not isinstance(definitions, Mapping):
        raise DataError([f"{where}: spaces are a mapping of names to definitions, not {shown(definitions)}"])
    spaces: dict[str, SpaceSpec] = {}
    faults: list[str] = []
    for name, definition in definitions.items():
        try:
            spaces[name] = parse_space(name, {} if definition is None else definition, f"{where}.{_word(name)}")
        except DataError as error:
            faults += error.faults
    for name, spec in spaces.items():
        if not (spec.of in definitions and spec.of not in spaces):  # else its own fault is listed already
            faults += [f"{where}.{name}: {fault}" for fault in chain_faults(spec, spaces)]
    if faults:
        raise DataError(faults)
    return spaces


def _word(name: Any) -> str:
    return name if isinstance(name, str) else shown(name)
