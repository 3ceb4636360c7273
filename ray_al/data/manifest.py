"""The manifest of an artifact: what it is, how it was made, and the size and hash of each file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
_KIND = re.compile(r"[a-z][a-z0-9_]*")


class Damage(Exception):
    """An artifact is there, but is not what its manifest says."""


def artifact_key(kind: str, config: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of kind and canonical JSON config.

    Raises:
        ValueError: `kind` is not lower case letters, digits and _; or the config is not plain JSON.
    """
    if not _KIND.fullmatch(kind):
        raise ValueError(f"artifact kind {kind!r} must be lower case letters, digits and _")
    try:
        text = json.dumps([kind, config], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"the config of a {kind} artifact must be plain JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(folder: Path, kind: str, config: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The manifest of the files now in `folder`.

    Raises:
        ValueError: there is no file, or one that has the manifest's name.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not names or MANIFEST in names:
        raise ValueError(f"the builder of {kind} must write files, none of them {MANIFEST}; it wrote {names}")
    return {
        "format": 1,
        "kind": kind,
        "key": artifact_key(kind, config),
        "config": config,
        "files": {
            name: {"sha256": file_hash(folder / name), "bytes": (folder / name).stat().st_size} for name in names
        },
        "seconds": round(seconds, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }


def parse_manifest(data: bytes, name: str) -> dict[str, Any]:
    """Read a manifest of artifact `name`.

    Raises:
        Damage: it is no manifest, or one of another artifact.
    """
    try:
        manifest: dict[str, Any] = json.loads(data)
        kind, key, config, files = (manifest[field] for field in ("kind", "key", "config", "files"))
        sound = f"{kind}-{key}" == name and artifact_key(kind, config) == key and manifest["format"] == 1 and files
        sound = sound and all(_is_inside(file) and isinstance(entry["bytes"], int) for file, entry in files.items())
        sound = sound and all(isinstance(entry["sha256"], str) for entry in files.values())
        sound = sound and _is_inside(manifest.get("at", "data"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{MANIFEST} cannot be read") from error
    if not sound:
        raise Damage(f"{MANIFEST} does not belong to {name}")
    return manifest


def check_files(folder: Path, manifest: Mapping[str, Any], *, hashes: bool) -> None:
    """Raise Damage unless the files of `folder` have the sizes, and if asked the hashes, of the manifest."""
    for name, entry in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            raise Damage(f"{name} is missing") from None
        if size != entry["bytes"]:
            raise Damage(f"{name} has {size} bytes instead of {entry['bytes']}")
        if hashes and file_hash(folder / name) != entry["sha256"]:
            raise Damage(f"{name} was changed (its SHA-256 differs)")


def encode(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def file_hash(path: Path) -> str:
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def flush_to_disk(folder: Path) -> None:
    """Wait until the files of `folder` are on the disk, so that a rename after it never names half-written files."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_inside(name: str) -> bool:
    """Whether a file name from a manifest stays inside the artifact's folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _versions() -> dict[str, str]:
    import numpy

    import ray_al

    return {"ray_al": ray_al.__version__, "numpy": numpy.__version__, "python": platform.python_version()}
