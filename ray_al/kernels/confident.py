"""The items that a model is sure of, with the classes it gives them."""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.top_scores import uncertainty


def confident(
    outputs: np.ndarray, probs: np.ndarray, score: str, threshold: float, exclude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids, ascending, of the rows whose uncertainty is at most `threshold`, and their most probable classes, int64.

    `outputs` is what `uncertainty` takes: probs (n, C), or for "bald" the members' (T, n, C). Rows `exclude` are left
    out. Of equally probable classes the first counts.

    Raises:
        ValueError: see `uncertainty`; an id does not exist.
    """
    sure = uncertainty(outputs, score) <= threshold
    sure[blocks.check_ids(exclude, len(sure), "exclude")] = False
    ids = np.flatnonzero(sure)
    return ids, probs[ids].argmax(1).astype(np.int64)
