"""Real embeddings for benchmarks: Tiny ImageNet in 256 principal components, tiled with noise for more rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

FILE = "tinyimagenet_effnetlite0_pca256.npz"


def embeddings(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows, width) float16 in random order, and their classes (rows,) in 0..199.

    Rows beyond the 100,000 of the file are copies moved by Gaussian noise of a tenth of each column's deviation.

    Raises:
        SystemExit: the folder that RAY_AL_DATA names does not hold the file.
    """
    path = Path(os.environ.get("RAY_AL_DATA", "")) / FILE
    if not path.is_file():
        raise SystemExit(f"RAY_AL_DATA must name a folder that holds {FILE}")
    with np.load(path, allow_pickle=False) as data:
        x, labels = data["train_features"][:, :width], data["train_labels"]
    rng = np.random.default_rng(seed)
    source = rng.permutation(len(x))[np.arange(rows) % len(x)]
    spread = x.astype(np.float32).std(0) / 10
    out = np.empty((rows, width), np.float16)
    for start in range(0, rows, 1 << 16):
        part = source[start : start + (1 << 16)]
        noise = rng.standard_normal((len(part), width), np.float32) * spread
        noise[: max(0, len(x) - start)] = 0  # the first of all copies stay as they are
        out[start : start + len(part)] = x[part] + noise
    return out, labels[source]
