"""Images in folders, one folder per class."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.data.faults import DataError, choices, user_path
from ray_al.data.names import item_name, names_digest

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_SHOWN = 10  # faults named one by one; a folder of a million broken files is one message longer


def load_imagefolder(path: str, size: int = 64) -> dict[str, Any]:
    """Images as (N, size, size, 3) uint8: shorter side scaled to `size` (bilinear), then the center cut out.

    Classes are the subfolders in sorted order, searched to any depth. When `path` has the subfolders train and test
    (or val), these are the splits. Files without an image suffix and hidden files are not read.

    Raises:
        DataError: no such folder, an empty class, a test class that is not in train, files that cannot be decoded.
    """
    root = user_path(path)
    if not os.path.isdir(root):
        raise DataError([f"{root} is not a folder"])
    second = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    if second and (root / "train").is_dir():
        folders = {"train": root / "train", "test": root / second}
    else:
        folders = {"train": root}
    names = _subfolders(folders["train"])
    if len(names) < 2:
        found = ", ".join(names) or "no subfolder"
        raise DataError([f"{folders['train']} has {found}; an image folder has one subfolder per class, at least two"])
    raw: dict[str, Any] = {"class_names": names}
    for split, folder in folders.items():
        raw |= _load_split(split, folder, names, size)
    return raw


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError([f"{folder} cannot be read: {error.strerror}"]) from error


def _load_split(split: str, folder: Path, names: list[str], size: int) -> dict[str, Any]:
    here = _subfolders(folder)
    faults = [
        f"{folder / name} is no class of the training split{choices(name, names)}" for name in here if name not in names
    ]
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        found = sorted(
            file
            for file in (folder / name).rglob("*")
            if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
        )
        if not found and split == "train":
            faults.append(f"{folder / name} has no images; known suffixes: {', '.join(sorted(SUFFIXES))}")
        files += [(file, label) for file in found]
    if not files and not faults:
        faults.append(f"{folder} has no images")
    if faults:
        raise DataError(faults)
    images = np.empty((len(files), size, size, 3), np.uint8)

    def decode(row: int) -> str | None:
        try:
            images[row] = _decode(files[row][0], size)
        except Exception as error:  # Pillow raises many types for one cause: a file that it cannot decode
            return f"{files[row][0]} cannot be decoded: {error}"
        return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        broken = [fault for fault in threads.map(decode, range(len(files))) if fault]
    if len(broken) > _SHOWN:
        broken = [*broken[:_SHOWN], f"and {len(broken) - _SHOWN} more files that cannot be decoded"]
    if broken:
        raise DataError(broken)
    labels = np.array([label for _, label in files], np.int64)
    items = names_digest(item_name(os.fsencode(file.relative_to(folder))) for file, _ in files)
    return {f"{split}_images": images, f"{split}_labels": labels, f"{split}_names": items}


def _decode(file: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))
