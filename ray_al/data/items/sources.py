"""THE table of image sources: `[split=]kind:path` -> a listing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ray_al.data.faults import DataError, choices, shown, user_path
from ray_al.data.items.folders import list_imagefolder
from ray_al.data.items.imagenet import list_imagenet
from ray_al.data.items.listing import SPLITS, Found, Listing, class_order, join
from ray_al.data.items.lsun import list_lsun
from ray_al.data.items.parquet_images import list_parquet

Lister = Callable[..., dict[str, list[Found]]]
KINDS: dict[str, Lister] = {
    "imagefolder": list_imagefolder,
    "imagenet": list_imagenet,
    "lsun": list_lsun,
    "parquet": list_parquet,
}


@dataclass(frozen=True)
class ImageSource:
    """What the user named. With `split`, all that is found is that split, whatever its own folders say."""

    kind: str
    path: Path
    split: str | None = None


def parse_source(text: str) -> ImageSource:
    """Read `kind:path`, `train=kind:path` or `test=kind:path`. Raises DataError."""
    split, equals, rest = text.partition("=")
    if not equals or split not in SPLITS:
        split, rest = "", text
    kind, colon, path = rest.partition(":")
    if not colon or not path:
        raise DataError([f"source {shown(text)}: write it as kind:path, e.g. imagefolder:photos; kinds: {_kinds()}"])
    if kind not in KINDS:
        raise DataError([f"source {shown(text)}: unknown kind {kind!r}{choices(kind, KINDS)}"])
    return ImageSource(kind, user_path(path), split or None)


def list_images(
    sources: Sequence[ImageSource], image_column: str | None = None, label_column: str | None = None
) -> Listing:
    """Everything that the sources hold, in one stable order. Raises DataError with the faults of all of them."""
    faults: list[str] = []
    found: dict[str, list[Found]] = {split: [] for split in SPLITS}
    if (image_column or label_column) and all(source.kind != "parquet" for source in sources):
        faults.append("--image-column and --label-column are for parquet sources; none is given")
    for source in sources:
        lister = KINDS[source.kind]
        if source.kind == "parquet":
            lister = partial(lister, image=image_column, label=label_column)
        try:
            for split, parts in lister(source.path).items():
                found[source.split or split] += parts
        except DataError as error:
            faults += error.faults
    if not faults and not found["train"]:
        faults.append("the sources hold a test split, but no training images; put train= before one of them")
    if faults:
        raise DataError(faults)
    return _joined(found)


def _joined(found: dict[str, list[Found]]) -> Listing:
    names = class_order(found["train"])
    strange = sorted({name for one in found["test"] for name in one.classes} - set(names))
    if strange:
        listed = ", ".join(map(repr, strange[:5]))
        raise DataError([f"the test split has {len(strange)} classes that the training split lacks: {listed}"])
    return Listing({split: join(parts, names) for split, parts in found.items() if parts}, tuple(names))


def _kinds() -> str:
    return ", ".join(KINDS)
