"""LSUN: one LMDB per category, of encoded images (WebP or JPEG) under their keys."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_al.data.faults import DataError
from ray_al.data.items.listing import Found, key_array

_NAME = re.compile(r"(?P<category>.+?)(_(?P<split>train|val))?_lmdb")
_CHUNK = 100_000


@dataclass(frozen=True)
class LmdbPart:
    """One LMDB folder (data.mdb); a key is the key of the item."""

    path: str

    @property
    def prefix(self) -> str:
        return f"{Path(self.path).name}/"

    def open(self) -> _LmdbReader:
        return _LmdbReader(_environment(self.path))


class _LmdbReader:
    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def read(self, key: bytes) -> bytes:
        with self._environment.begin() as transaction:
            value = transaction.get(key)
        if value is None:
            raise KeyError(key)
        return bytes(value)


def list_lsun(path: Path) -> dict[str, list[Found]]:
    """The LMDBs in PATH, or the one that PATH is: `bedroom_train_lmdb` is class bedroom of train, `_val_` of test.

    An LMDB of another name is a class of train called by its name. `test_lmdb`, which has no labels, is left out.
    Rows go by category, then in the order of the keys.

    Raises:
        DataError: no LMDB there, one that cannot be read or is empty, or the module lmdb is not installed.
    """
    if not path.is_dir():
        raise DataError([f"{path} is not a folder; an LMDB is a folder that holds data.mdb"])
    folders = [path] if (path / "data.mdb").is_file() else sorted(p for p in path.iterdir() if _is_lmdb(p))
    found: dict[str, list[Found]] = {}
    for folder in folders:
        match = _NAME.fullmatch(folder.name)
        if folder.name == "test_lmdb":
            continue
        category = match["category"] if match else folder.name
        split = "test" if match and match["split"] == "val" else "train"
        found.setdefault(split, []).append(_list_lmdb(folder, category))
    if not found:
        raise DataError([f"{path} is no LMDB and holds none (folders with data.mdb, e.g. bedroom_train_lmdb)"])
    return found


def _is_lmdb(folder: Path) -> bool:
    return not folder.name.startswith(".") and (folder / "data.mdb").is_file()


def _list_lmdb(folder: Path, category: str) -> Found:
    environment = _environment(str(folder))
    chunks: list[pa.Array] = []
    sizes: list[np.ndarray] = []
    keys: list[bytes] = []
    lengths: list[int] = []

    def flush() -> None:
        chunks.append(key_array(keys))
        sizes.append(np.array(lengths, np.int64))
        keys.clear()
        lengths.clear()

    # Values as views into the memory map: their lengths come without reading them.
    with _readable(folder), environment.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            keys.append(bytes(key))
            lengths.append(len(value))
            if len(keys) == _CHUNK:
                flush()
    flush()
    total = sum(map(len, sizes))
    if not total:
        raise DataError([f"{folder} is an empty LMDB"])
    return Found(
        LmdbPart(str(folder)), pa.concat_arrays(chunks), np.concatenate(sizes), np.zeros(total, np.int64), [category]
    )


@functools.lru_cache(maxsize=64)  # a process may open an LMDB once
def _environment(path: str) -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise DataError(["reading LSUN's LMDBs needs the module lmdb: pip install 'ray-al[lsun]'"]) from error
    with _readable(Path(path)):
        # No lock file: the folder may be read-only, and nobody writes to it. No readahead: rows may be anywhere.
        environment = lmdb.open(path, readonly=True, lock=False, readahead=False, max_readers=256, create=False)
        there = (Path(path) / "data.mdb").stat().st_size
        whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if there < whole:  # the system would end this process at the first page that is missing
            environment.close()
            raise DataError([f"{path}/data.mdb has {there} of the {whole} bytes that it names; copy it again"])
        return environment


class _readable:
    """Turns lmdb's errors into one that names the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and type(error).__module__.startswith("lmdb"):
            raise DataError([f"{self._folder} cannot be read as an LMDB: {error}"]) from error
