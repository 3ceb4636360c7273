"""Bytes under names, on a local folder or any file system of pyarrow (s3://, gs://). Every write is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What file systems answer that cannot flush a folder, some network ones among them: names are theirs to keep.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES}
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")  # names of half-written files, of `Storage.write`


class DamagedFile(ValueError):
    """A file is there, but not what its name says: cut short, overwritten, or of a disk that lost bits."""

    def __init__(self, storage: Storage, name: str, error: object, remedy: str) -> None:
        reason = " ".join(str(error).split())[:200]
        self.damage = f"{posixpath.join(storage.root, name)} is damaged ({reason})"
        super().__init__(f"{self.damage}: {remedy}")


class DamageWarning(UserWarning):
    """A damaged file was left out, or what it held is made anew."""


@dataclass(frozen=True)
class Storage:
    """A folder. `filesystem` is None for a local path, which is then written with fsync and rename.

    `uri` opens the same folder again, in any process; for a local one it is the path.
    """

    root: str
    filesystem: Any = None
    uri: str = ""

    def __post_init__(self) -> None:
        if not self.uri:
            object.__setattr__(self, "uri", self.root)

    @classmethod
    def open(cls, uri: str | Path) -> Storage:
        """Open a local path or a URI; nothing is created until the first write.

        Raises:
            ValueError: the URI's scheme is not known to pyarrow, or the path cannot be (`~nobody/x`).
        """
        text = str(uri)
        if "://" not in text:
            try:
                return cls(str(Path(text).expanduser().resolve()))
            except (RuntimeError, OSError, ValueError) as error:  # no such user, links in a circle, a null character
                raise ValueError(f"cannot open storage {text!r}: {error}") from None
        from pyarrow import fs

        try:
            filesystem, root = fs.FileSystem.from_uri(_one_request(text))
        except Exception as error:  # pyarrow raises many types for one cause: a URI that it cannot open
            raise ValueError(f"cannot open storage {text!r}: {error}") from None
        if isinstance(filesystem, fs.LocalFileSystem):
            return cls(root)
        if not root.strip("/"):
            raise ValueError(f"cannot open storage {text!r}: it names no bucket or folder")
        return cls(root, filesystem, text)

    @property
    def local(self) -> Path | None:
        """The folder as a path, or None when it is remote."""
        return Path(self.root) if self.filesystem is None else None

    def has_bucket(self) -> bool:
        """Whether the first part of a remote root is there, in which all the rest is made when it is written.

        Raises:
            OSError: the store does not answer, or not to this user.
        """
        from pyarrow import fs

        bucket = self.root.split("/")[0]
        return not bucket or bool(self.filesystem.get_file_info(bucket).type != fs.FileType.NotFound)

    def child(self, name: str) -> Storage:
        place, mark, query = self.uri.partition("?")
        return Storage(posixpath.join(self.root, name), self.filesystem, posixpath.join(place, name) + mark + query)

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: after a crash at any moment it is the old one, the new one, or absent.

        Local files reach the disk before they get their name, and the name does before this returns: what was written
        earlier survives a power cut, too. On object stores a put is atomic and durable by itself.

        Raises:
            OSError: the disk is full, or the place cannot be written; nothing is left behind.
        """
        target = posixpath.join(self.root, name)
        if self.filesystem is not None:
            self.put(name, lambda out: out.write(data))
            return
        # The leading dot hides a half-written file from every listing until it is renamed: see `_DRAFT`.
        draft = posixpath.join(posixpath.dirname(target), f".{posixpath.basename(target)}.{uuid.uuid4().hex[:8]}")
        _make_folder(posixpath.dirname(target))
        try:
            with open(draft, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.replace(draft, target)
            _sync_folder(posixpath.dirname(target))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def put(self, name: str, fill: Callable[[Any], Any]) -> None:
        """Write a file of a remote storage by `fill`, which gets a stream, and a fresh one again where it must retry.

        Object stores have no folders: creating one first would cost a request, or leave an object of that name. When
        `fill` fails, what there is of the file is deleted: closing a stream of pyarrow puts it there in any case.
        """
        target = posixpath.join(self.root, name)
        try:
            self._stream(target, fill)
        except FileNotFoundError:  # a file system with folders
            self.filesystem.create_dir(posixpath.dirname(target), recursive=True)
            self._stream(target, fill)

    def _stream(self, target: str, fill: Callable[[Any], Any]) -> None:
        out = self.filesystem.open_output_stream(target)
        try:
            fill(out)
        except BaseException:
            with contextlib.suppress(OSError):
                out.close()
                self.filesystem.delete_file(target)
            raise
        out.close()

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError when there is no such file."""
        path = posixpath.join(self.root, name)
        if self.filesystem is None:
            return Path(path).read_bytes()
        with self.filesystem.open_input_file(path) as source:
            return bytes(source.read())

    def read_json(self, name: str) -> dict[str, Any]:
        """The mapping in a file that every run of a sweep writes anew.

        Raises:
            DamagedFile: there is something else in it.
            FileNotFoundError: there is no such file.
        """
        data = self.read(name)
        try:
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError(f"a mapping is wanted, not {type(found).__name__}")
        except ValueError as error:  # of JSON and of UTF-8, too
            raise DamagedFile(self, name, error, "the sweep's own `ray-al run` writes it anew") from None
        return found

    def exists(self, name: str) -> bool:
        if self.filesystem is None:
            return os.path.exists(posixpath.join(self.root, name))
        from pyarrow import fs

        return bool(self.filesystem.get_file_info(posixpath.join(self.root, name)).type != fs.FileType.NotFound)

    def list(self, name: str = "") -> list[str]:
        """Names of the files and folders directly in folder `name`, sorted, without half-written ones; [] if absent."""
        path = posixpath.join(self.root, name) if name else self.root
        if self.filesystem is None:
            try:
                return sorted(entry for entry in os.listdir(path) if not entry.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []
        from pyarrow import fs

        found = self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if not info.base_name.startswith("."))

    def delete_drafts(self, name: str) -> None:
        """Delete what killed writes left half-written in folder `name`, if it can. A write going on there fails."""
        if self.local:
            with contextlib.suppress(OSError):
                for entry in os.listdir(self.local / name):
                    if _DRAFT.fullmatch(entry):
                        self.delete(f"{name}/{entry}")

    def delete(self, name: str) -> None:
        """Delete a file or a folder with all in it; a name that is not there is no error."""
        path = posixpath.join(self.root, name)
        if self.filesystem is None:
            import shutil

            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        else:
            from pyarrow import fs

            kind = self.filesystem.get_file_info(path).type
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(path)
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(path)


def _one_request(uri: str) -> str:
    """An S3 URI for which small files are put by one request instead of the three of an upload in parts."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _make_folder(path: str) -> None:
    """Make a folder and those above it; their names are on disk when this returns."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    _sync_folder(parent)


def _sync_folder(path: str) -> None:
    """Flush the names in a folder to disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
