"""A local folder of artifacts: reading with checks, building into a hidden draft, publishing by one rename."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_al.data.locks import new_draft
from ray_al.data.manifest import MANIFEST, Damage, check_files, describe, encode, flush_to_disk, parse_manifest

_verified: set[tuple[str, bytes]] = set()  # (folder, manifest) whose hashes this process has checked


@dataclass(frozen=True)
class Artifact:
    """A whole artifact on this machine. Others share its files: treat them as read-only."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`<kind>-<key>`, by which any node opens it from storage."""
        return f"{self.manifest['kind']}-{self.manifest['key']}"

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.manifest["config"]
        return config


@dataclass(frozen=True)
class ArtifactFolder:
    """The folder itself. Callers of the methods that change it hold the lock of the name."""

    path: Path
    verify: bool = True

    def read(self, name: str) -> Artifact | None:
        """The artifact, checked; None when there is none.

        Raises:
            Damage: it is not what its manifest says.
        """
        folder = self.path / name
        try:
            data = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            if folder.exists():
                raise Damage(f"{MANIFEST} is missing") from None
            return None
        manifest = parse_manifest(data, name)
        seen = (str(folder), data)
        check_files(folder, manifest, hashes=self.verify and seen not in _verified)
        if self.verify:
            _verified.add(seen)
        return Artifact(folder, manifest)

    def take(self, name: str) -> Artifact | None:
        """Like `read`, but a damaged artifact is cleared away with a warning."""
        try:
            return self.read(name)
        except Damage as damage:
            warn_of(name, damage)
            self.clear(name)
            return None

    def clear(self, name: str) -> None:
        """Remove an artifact; one rename first, so that nobody sees half of it."""
        draft = new_draft(self.path, name)
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).rename(draft)
        shutil.rmtree(draft, ignore_errors=True)

    def build(self, name: str, kind: str, config: Mapping[str, Any], build: Callable[[Path], None]) -> Artifact:
        """Run the builder and publish its files; when it fails, nothing is left."""

        def fill(draft: Path) -> None:
            started = time.perf_counter()
            build(draft)
            (draft / MANIFEST).write_bytes(encode(describe(draft, kind, config, time.perf_counter() - started)))

        return self.publish(name, fill)

    def publish(self, name: str, fill: Callable[[Path], None]) -> Artifact:
        """Let `fill` write all files, manifest too, into a draft, and give it its name in one step."""
        draft = new_draft(self.path, name)
        try:
            draft.mkdir(parents=True)
            fill(draft)
            flush_to_disk(draft)
            try:
                draft.rename(self.path / name)
                # Hashed a moment ago, when the manifest was written or the download checked.
                _verified.add((str(self.path / name), (self.path / name / MANIFEST).read_bytes()))
            except OSError as error:
                # Where the file system has no locks, another builder may have been first: theirs is as good.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        published = self.read(name)
        if published is None:
            raise FileNotFoundError(f"the artifact {self.path / name} was removed while it was published")
        return published


def warn_of(name: str, damage: Damage) -> None:
    warnings.warn(f"artifact {name} is damaged ({damage}); it is built again", RuntimeWarning, stacklevel=2)
