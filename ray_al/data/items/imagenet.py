"""ImageNet (ILSVRC 2012): train/<wnid>/*.JPEG, and val/ by wnid or flat with a file of labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

from ray_al.data.faults import DataError
from ray_al.data.items.folders import found_files, image_files, list_classes, list_folders
from ray_al.data.items.listing import Found

_KAGGLE = Path("ILSVRC/Data/CLS-LOC")
_DEVKIT = Path("ILSVRC2012_devkit_t12/data")


def list_imagenet(path: Path) -> dict[str, list[Found]]:
    """PATH holds train/ and val/, or is the folder that Kaggle's archive unpacks to (ILSVRC/Data/CLS-LOC).

    Classes are the wnids in sorted order. A flat val/ takes its labels from the first of these files in PATH:
    LOC_val_solution.csv (Kaggle), val.txt or val_labels.txt (a line `<file> <wnid or class number>` per image), or
    ILSVRC2012_validation_ground_truth.txt with meta.mat (the development kit, in PATH or its own subfolder).

    Raises:
        DataError: no train/ there, a flat val/ without labels, or labels that do not fit it.
    """
    data = path / _KAGGLE if (path / _KAGGLE / "train").is_dir() else path
    if not (data / "train").is_dir():
        raise DataError([f"{path} is not laid out as ImageNet is: there is no folder {data / 'train'}"])
    train = list_classes(data / "train")
    found = {"train": [train]}
    if (data / "val").is_dir():
        if list_folders(data / "val"):
            found["test"] = [list_classes(data / "val", needed=False)]
        else:
            found["test"] = [_flat(data / "val", path, list(train.classes))]
    return found


def _flat(folder: Path, root: Path, wnids: list[str]) -> Found:
    with os.scandir(os.fsencode(folder)) as entries:
        files = sorted((entry.name, entry.stat().st_size) for entry in image_files(entries))
    if not files:
        raise DataError([f"{folder} has no images"])
    source, labels = _labels_of(root, [os.fsdecode(name) for name, _ in files], wnids)
    missing = [os.fsdecode(name) for name, _ in files if os.fsdecode(name) not in labels]
    if missing:
        raise DataError([f"{source} has no label of {len(missing)} images of {folder}, e.g. {missing[0]}"])
    strange = sorted({labels[os.fsdecode(name)] for name, _ in files} - set(wnids))
    if strange:
        raise DataError([f"{source} names {len(strange)} classes that train/ does not have, e.g. {strange[0]!r}"])
    by_class: dict[str, list[tuple[bytes, int]]] = {wnid: [] for wnid in wnids}
    for name, size in files:
        by_class[labels[os.fsdecode(name)]].append((name, size))
    return found_files(folder, {wnid: found for wnid, found in by_class.items() if found})


def _labels_of(root: Path, files: list[str], wnids: list[str]) -> tuple[Path, dict[str, str]]:
    """(the file that says so, file name -> wnid)."""
    readers: dict[Path, Callable[[Path], dict[str, str]]] = {
        root / "LOC_val_solution.csv": _kaggle,
        root / "val.txt": lambda file: _lines(file, wnids),
        root / "val_labels.txt": lambda file: _lines(file, wnids),
    }
    for folder in (root, root / _DEVKIT):
        readers[folder / "ILSVRC2012_validation_ground_truth.txt"] = lambda file: _devkit(file, files)
    for file, read in readers.items():
        if file.is_file():
            try:
                return file, read(file)
            except (OSError, ValueError, KeyError, IndexError) as error:
                raise DataError([f"{file} cannot be read as labels of the validation images: {error!r}"]) from error
    known = ", ".join(dict.fromkeys(file.name for file in readers))
    raise DataError([f"the validation images of {root} lie flat, and none of these files has their labels: {known}"])


def _kaggle(file: Path) -> dict[str, str]:
    """ImageId,PredictionString: the wnid comes first, then the boxes."""
    with open(file, newline="", encoding="utf-8") as source:
        return {f"{row['ImageId']}.JPEG": row["PredictionString"].split()[0] for row in csv.DictReader(source)}


def _lines(file: Path, wnids: list[str]) -> dict[str, str]:
    pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {Path(name).name: wnids[int(label)] if label.isdigit() else label for name, label in pairs}


def _devkit(file: Path, files: list[str]) -> dict[str, str]:
    """Line i is the class number (1..1000, of meta.mat) of the i-th validation image."""
    from scipy.io import loadmat

    synsets = loadmat(file.parent / "meta.mat", squeeze_me=True)["synsets"]
    wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets.ravel()}
    numbers = [int(line) for line in file.read_text().split()]
    if len(numbers) != len(files):
        raise ValueError(f"it has {len(numbers)} lines for {len(files)} images")
    return {name: wnids[number] for name, number in zip(files, numbers, strict=True)}
