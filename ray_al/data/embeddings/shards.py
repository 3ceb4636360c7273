"""A folder that is being filled: its settings, its lock, and whole shards of rows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, shown

SETTINGS, MANIFEST, RUN, SHARDS = "settings.json", "manifest.json", "run.json", "shards"
_OURS = {"format", "batch"}  # in the settings of every extraction, and hardly in another program's settings.json
_NAMES = r"(settings|manifest|run)\.json|failures\.csv|(train|test)(-\d+|_labels|_items)?\.(npy|json|parquet)"
_DRAFT = re.compile(rf"\.({_NAMES})\.[0-9a-f]{{8}}")  # as `_draft` names them


@dataclass(frozen=True)
class ShardFolder:
    """Shard k of a split holds its items k * rows ... (k + 1) * rows - 1; a shard that has its name is whole."""

    path: Path
    rows: int

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse a folder that is no place for these settings; nothing is touched.

        Raises:
            DataError: rows of other settings are in it, or it holds something else.
        """
        _refuse_foreign(self.path)
        if (there := self.begun()) is None:
            return
        if differences := list(_differences(there, json.loads(encode(settings)))):
            ways = "repeat the command as it was, give a new folder, or delete this one"
            raise DataError([f"--out: {self.path} was begun with other settings; {ways}", *differences])

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Claim the folder for these settings, or find it claimed for them. Raises DataError as `check` does."""
        self.check(settings)
        if self.begun() is None:
            self.drop_shards()
            write_whole(self.path / SETTINGS, encode(settings))
        for left in [*self.path.glob(".*"), *self.path.glob(f"{SHARDS}/.*")]:
            if _DRAFT.fullmatch(left.name) and left.is_file():
                left.unlink()  # of a writer that was killed

    def begun(self) -> dict[str, Any] | None:
        """The settings of the rows that are there; None without any: what a failed command left binds nobody."""
        rows = (self.path / MANIFEST).is_file() or any(self.path.glob(f"{SHARDS}/*.npy"))
        return _read(self.path / SETTINGS) if rows else None

    def manifest(self) -> dict[str, Any] | None:
        """None until the folder is finished."""
        return _read(self.path / MANIFEST)

    def drop_shards(self) -> None:
        shutil.rmtree(self.path / SHARDS, ignore_errors=True)

    def missing(self, split: str, items: int) -> list[int]:
        """The numbers of the shards of a split that are not there yet."""
        count = -(-items // self.rows)
        return [k for k in range(count) if not self._file(split, k, "npy").is_file()]

    def write(self, split: str, shard: int, rows: np.ndarray, failures: Mapping[int, str]) -> None:
        """`rows` (n, D) of all items of a shard, zeros where `failures` (item -> reason) has one."""
        # First the failures: the rows' name says that both are there.
        entries = [[item, reason] for item, reason in sorted(failures.items())]
        write_whole(self._file(split, shard, "json"), encode(entries))
        with _draft(self._file(split, shard, "npy")) as out:
            np.save(out, rows, allow_pickle=False)

    def read(self, split: str, shard: int) -> np.ndarray:
        rows: np.ndarray = np.load(self._file(split, shard, "npy"), mmap_mode="r", allow_pickle=False)
        return rows

    def failures(self, split: str, shard: int) -> dict[int, str]:
        """Item -> why it could not be decoded."""
        return dict(json.loads(self._file(split, shard, "json").read_bytes()))

    def _file(self, split: str, shard: int, suffix: str) -> Path:
        return self.path / SHARDS / f"{split}-{shard:06d}.{suffix}"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder against a second extraction; the system lets go when this process ends in any way.

    Raises:
        DataError: another extraction has it, or what it holds is of no extraction.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError([f"--out: cannot make the folder {folder}: {error.strerror}"]) from error
    _refuse_foreign(folder)
    with open(folder / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError([f"--out: another extraction into {folder} is going on; wait for it, or stop it"]) from None
        except OSError:  # a file system without locks
            pass
        yield


def _refuse_foreign(folder: Path) -> None:
    """Raise DataError unless the folder is an extraction's, or holds at most hidden files."""
    if (_read(folder / SETTINGS) or {}).keys() >= _OURS:
        return
    if held := sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")):
        fault = f"--out: {folder} is not empty and holds no settings of an extraction, but {held[0]}"
        raise DataError([f"{fault}; give a new folder"])


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError([f"--out: {path} cannot be read ({error}); give a new folder"]) from error
    return found if isinstance(found, dict) else {}


def write_whole(path: Path, data: bytes) -> None:
    with _draft(path) as out:
        out.write(data)


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Any]:
    """A file that gets its name once all of it is on the disk; a hidden draft until then."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(draft, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def encode(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _differences(there: Any, now: Any, where: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*there, *now]):
            yield from _differences(there.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif there != now:
        yield f"{where} was {shown(there)}, and is {shown(now)} now"
