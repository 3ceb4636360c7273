"""Small pictures written in the true formats: image folders, ImageNet's layout, LSUN's LMDB, Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth colors, so that JPEG and WebP keep them nearly as they are."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(seed: int, kind: str = "png", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(seed)).save(out, kind, **options)
    return out.getvalue()


def write_folder(root: Path, counts: dict[str, int], kind: str = "png", first: int = 0) -> None:
    """`counts` images per class."""
    seed = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i:03d}.{kind}").write_bytes(encoded(seed, {"jpg": "jpeg"}.get(kind, kind)))
            seed += 1


def write_lmdb(folder: Path, items: dict[bytes, bytes]) -> None:
    import lmdb

    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)


def write_parquet(
    path: Path, images: list[bytes], labels: list[int] | list[str], names: list[str] | None = None, group: int = 3
) -> None:
    """As `datasets` of Hugging Face writes it: struct{bytes, path}, and the names of the classes in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(meta)
    parquet.write_table(table, path, row_group_size=group)
