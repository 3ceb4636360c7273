"""Images as files: one folder per class, the subfolders train and test (or val) as splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_al.data.faults import DataError
from ray_al.data.imagefolder import SUFFIXES
from ray_al.data.items.listing import Found, key_array

_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)
_LISTERS = 16  # threads: on a network file system, listing is waiting


@dataclass(frozen=True)
class FolderPart:
    """Files under `root`; a key is the path below it."""

    root: str
    prefix: str = ""

    def open(self) -> FolderPart:
        return self

    def read(self, key: bytes) -> bytes:
        with open(os.path.join(os.fsencode(self.root), key), "rb") as source:
            return source.read()


def list_imagefolder(path: Path) -> dict[str, list[Found]]:
    """PATH/train and PATH/test (or val) with one subfolder per class, or PATH/<class> without a test split.

    Within a class, images are searched to any depth; links to folders are not followed there. Hidden files and files
    without an image suffix are no items. Rows go by class, then by path.

    Raises:
        DataError: no such folder, no class, a class without images.
    """
    folders = split_folders(path)
    return {split: [list_classes(folder, split == "train")] for split, folder in folders.items()}


def split_folders(path: Path) -> dict[str, Path]:
    """The folders of the splits; `val` is the test split when there is no `test`."""
    if not path.is_dir():
        raise DataError([f"{path} is not a folder"])
    second = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
    if second is not None and (path / "train").is_dir():
        return {"train": path / "train", "test": second}
    return {"train": path / "train" if list_folders(path) == ["train"] else path}


def list_classes(folder: Path, needed: bool = True) -> Found:
    """The images of a folder with one subfolder per class; where `needed`, every class must have some."""
    names = list_folders(folder)
    if not names:
        raise DataError([f"{folder} has no subfolder; an image folder has one per class"])
    with ThreadPoolExecutor(_LISTERS) as threads:
        files = list(threads.map(lambda name: _list_class(folder, name), names))
    if empty := [name for name, found in zip(names, files, strict=True) if not found and needed]:
        known = ", ".join(sorted(SUFFIXES))
        raise DataError([f"{folder / name} has no images; known suffixes: {known}" for name in empty[:10]])
    return found_files(folder, {name: found for name, found in zip(names, files, strict=True) if found})


def found_files(folder: Path, files: Mapping[str, Sequence[tuple[bytes, int]]]) -> Found:
    """Class name -> (path below `folder`, bytes), as items."""
    counts = [len(found) for found in files.values()]
    everything = [entry for found in files.values() for entry in found]
    if not everything:
        raise DataError([f"{folder} has no images"])
    return Found(
        part=FolderPart(str(folder)),
        keys=key_array(key for key, _ in everything),
        sizes=np.array([size for _, size in everything], np.int64),
        labels=np.repeat(np.arange(len(counts)), counts),
        classes=list(files),
    )


def list_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError([f"{folder} cannot be read: {error.strerror}"]) from error


def image_files(entries: Iterable[os.DirEntry[bytes]]) -> Iterable[os.DirEntry[bytes]]:
    for entry in entries:
        if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(b".") and entry.is_file():
            yield entry


def _list_class(folder: Path, name: str) -> list[tuple[bytes, int]]:
    """(path below `folder`, bytes) of each image of a class, in the order of the `imagefolder` dataset."""
    root, found = os.fsencode(folder), []
    todo = [os.fsencode(name)]
    try:
        while todo:
            here = todo.pop()
            with os.scandir(os.path.join(root, here)) as entries:
                listed = list(entries)
            todo += [os.path.join(here, e.name) for e in listed if e.is_dir(follow_symlinks=False)]
            found += [(os.path.join(here, e.name), e.stat().st_size) for e in image_files(listed)]
    except OSError as error:
        raise DataError([f"{folder / name} cannot be read: {error}"]) from error
    return sorted(found, key=lambda entry: os.fsdecode(entry[0]).split(os.sep))
