"""The artifact store: expensive results, content-addressed, built once and shared by all who name the same content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_al.data import remote
from ray_al.data.artifact_folder import Artifact, ArtifactFolder, warn_of
from ray_al.data.locks import clean_leftovers, exclusive
from ray_al.data.manifest import MANIFEST, Damage, artifact_key, check_files, parse_manifest
from ray_al.storage import Storage

__all__ = ["Artifact", "ArtifactStore", "artifact_key"]

Build = Callable[[Path], None]


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts in `<storage>/artifacts/<kind>-<key>/`. Those of a remote storage are copied to the cache folder.

    `verify` checks the hashes of an artifact when a process first reads it; sizes are checked every time.
    """

    storage: Storage
    verify: bool = True

    def get_or_build(self, kind: str, config: Mapping[str, Any], build: Build) -> Artifact:
        """The artifact of (kind, config); when there is none, `build` writes its files into the folder it is given.

        Of several builders at once on one file system, one builds and the others wait for it. A damaged artifact is
        built again, with a warning. What `build` raises is raised again, and leaves nothing behind.

        Raises:
            ValueError: the config is not plain JSON, or `build` wrote no files.
            OSError: the disk is full, or the storage cannot be written.
        """
        name = f"{kind}-{artifact_key(kind, config)}"
        with contextlib.suppress(FileNotFoundError):
            return self.open(name)
        with self._lock(name):
            if self._is_remote:
                return self._sync(name, kind, config, build)
            return self._here.take(name) or self._here.build(name, kind, config, build)

    def open(self, name: str) -> Artifact:
        """The artifact of a known name (`Artifact.name`), from storage alone.

        Raises:
            FileNotFoundError: there is none, or it is damaged; `get_or_build` builds it again.
        """
        try:
            if self._is_remote:
                theirs = self._shared.read(f"{name}/{MANIFEST}")
                found = self._copy_of(name, theirs)
                if found is None:
                    with self._lock(name):
                        found = self._copy_of(name, theirs) or self._download(name, theirs)
            else:
                found = self._here.read(name)
        except Damage as damage:
            raise FileNotFoundError(f"artifact {name} in {self._shared.root} is damaged: {damage}") from damage
        if found is None:
            raise FileNotFoundError(f"there is no artifact {name} in {self._shared.root}")
        return found

    def has(self, kind: str, config: Mapping[str, Any]) -> bool:
        """Whether the storage has the artifact, whole by its sizes (no hashes). Builds and downloads nothing."""
        name = f"{kind}-{artifact_key(kind, config)}"
        try:
            manifest = parse_manifest(self._shared.read(f"{name}/{MANIFEST}"), name)
            if not self._is_remote:
                check_files(self._here.path / name, manifest, hashes=False)
        except (FileNotFoundError, NotADirectoryError, Damage):
            return False
        return True

    @property
    def _shared(self) -> Storage:
        return self.storage.child("artifacts")

    @property
    def _is_remote(self) -> bool:
        return self.storage.local is None

    @property
    def _here(self) -> ArtifactFolder:
        """Where artifacts lie on this machine: the storage itself, or the copy of a remote one."""
        return ArtifactFolder(self._shared.local or remote.cache_of(self._shared), self.verify)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        folder = self._here.path
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, name) as alone:
            if alone:
                clean_leftovers(folder, held=name)
            yield

    def _copy_of(self, name: str, theirs: bytes) -> Artifact | None:
        """This machine's copy, if it is whole and the one that the remote manifest describes."""
        try:
            found = self._here.read(name)
        except Damage:
            return None
        return found if found is not None and (found.path / MANIFEST).read_bytes() == theirs else None

    def _download(self, name: str, theirs: bytes) -> Artifact:
        manifest = parse_manifest(theirs, name)
        self._here.clear(name)

        def fill(draft: Path) -> None:
            remote.download(self._shared, name, manifest, draft)
            (draft / MANIFEST).write_bytes(theirs)

        return self._here.publish(name, fill)

    def _sync(self, name: str, kind: str, config: Mapping[str, Any], build: Build) -> Artifact:
        """Take the remote artifact; if there is none, build it here and upload it. This machine's lock is held."""
        theirs: bytes | None = None
        with contextlib.suppress(FileNotFoundError):
            theirs = self._shared.read(f"{name}/{MANIFEST}")
        if theirs is not None:
            try:
                return self._copy_of(name, theirs) or self._download(name, theirs)
            except Damage as damage:
                warn_of(name, damage)
                self._here.clear(name)
        # A whole copy here of what the storage has lost is uploaded, not built again.
        built = self._here.take(name) or self._here.build(name, kind, config, build)
        winner = remote.upload(self._shared, name, built.path, replaces=theirs)
        return self._copy_of(name, winner) or self._download(name, winner)
