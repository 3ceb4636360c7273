"""Artifacts on object stores: files first, the manifest last, so that an artifact with a manifest is whole."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import shutil
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray_al.data.cache import cache_folder
from ray_al.data.manifest import MANIFEST, Damage, check_files, encode, parse_manifest
from ray_al.storage import Storage

_CHUNK = 1 << 24  # bytes copied at a time


def cache_of(storage: Storage) -> Path:
    """The folder of this machine that holds copies of this storage's artifacts."""
    place = f"{storage.filesystem.type_name}:{storage.root}"
    return cache_folder() / "artifacts" / hashlib.sha256(place.encode()).hexdigest()[:16]


def download(storage: Storage, name: str, manifest: Mapping[str, Any], target: Path) -> None:
    """Copy the files that a manifest describes into folder `target`, and check them.

    Raises:
        Damage: a file is missing, or not what the manifest says.
    """
    source = posixpath.join(storage.root, name, manifest.get("at", ""))
    for file in manifest["files"]:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = storage.filesystem.open_input_stream(posixpath.join(source, file))
        except FileNotFoundError:
            raise Damage(f"{file} is missing") from None
        with stream, open(target / file, "wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK)
    check_files(target, manifest, hashes=True)


def upload(storage: Storage, name: str, folder: Path, replaces: bytes | None) -> bytes:
    """Upload the artifact in `folder` and return the manifest that holds from now on.

    Builders on two machines may differ in the last bits, so each puts its files under a name of its own, and the
    manifest tells which ones count. A manifest that another builder put there meanwhile wins; `replaces` is the one
    of a damaged artifact, which does not. The local manifest becomes the one that holds, if it is ours.
    """
    manifest = dict(parse_manifest((folder / MANIFEST).read_bytes(), name)) | {"at": f"data-{uuid.uuid4().hex[:12]}"}
    try:
        for file in manifest["files"]:
            storage.put(f"{name}/{manifest['at']}/{file}", partial(_copy, folder / file))
        theirs = _read(storage, name)
        if theirs is not None and theirs != replaces:
            storage.delete(f"{name}/{manifest['at']}")
            return theirs
        ours = encode(manifest)
        storage.write(f"{name}/{MANIFEST}", ours)
    except BaseException:
        with contextlib.suppress(OSError):
            storage.delete(f"{name}/{manifest['at']}")
        raise
    Storage(str(folder)).write(MANIFEST, ours)
    if replaces is not None:
        _delete_old(storage, name, replaces)
    return ours


def _copy(file: Path, out: Any) -> None:
    with open(file, "rb") as source:
        shutil.copyfileobj(source, out, _CHUNK)


def _read(storage: Storage, name: str) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return storage.read(f"{name}/{MANIFEST}")
    return None


def _delete_old(storage: Storage, name: str, manifest: bytes) -> None:
    """Delete the files of a damaged artifact, if its manifest still tells where they are."""
    with contextlib.suppress(Damage, OSError):
        place = parse_manifest(manifest, name).get("at")
        if place:
            storage.delete(f"{name}/{place}")
