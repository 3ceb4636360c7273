"""From labels to the sources of a propagation, and from its solution to pseudo-labels and how sure they are."""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.compiled import compiled
from ray_al.kernels.label_propagation import Sources


def label_sources(
    ids: np.ndarray,
    labels: np.ndarray,
    classes: int,
    alpha: float,
    tol: float = 1e-6,
    iterations: int | None = None,
    balanced: bool = True,
) -> Sources:
    """One column per class: 1 at its labeled nodes, over their number when `balanced` (as the released code does).

    Raises:
        ValueError: ids and labels do not fit, an id occurs twice, or a label is not in 0..classes-1.
    """
    ids, labels = np.asarray(ids), np.asarray(labels)
    if ids.ndim != 1 or ids.shape != labels.shape:
        raise ValueError(f"ids {ids.shape} and labels {labels.shape} are two vectors of one length")
    labels = blocks.check_ids(labels, classes, "labels")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"ids holds {values[counts > 1][0]} twice")
    share = 1.0 / np.maximum(np.bincount(labels, minlength=classes), 1) if balanced else np.ones(classes)
    return Sources(ids.astype(np.int64), labels, share[labels], classes, alpha, tol, iterations)


def pseudo_labels(
    z: np.ndarray, ids: np.ndarray, labels: np.ndarray, relative: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 labels and (N,) float32 certainties in 0..1 of a solution z (N, C).

    A row's probabilities are its entries over their sum, negative ones taken as 0; the certainty is
    1 - entropy / log C, divided by the largest of all when `relative`. Nodes that nothing reaches have label 0 and
    certainty 0. Labeled nodes have their own labels and certainty 1.
    """
    count, classes = z.shape
    best, sure = np.empty(count, np.int64), np.empty(count, np.float32)
    for start in range(0, count, 1 << 16):
        part = np.maximum(z[start : start + (1 << 16)].astype(np.float64), 0)
        total = part.sum(1, keepdims=True)
        part /= np.where(total > 0, total, 1)
        entropy = -(part * np.log(np.where(part > 0, part, 1))).sum(1)
        certainty = 1 - entropy / np.log(classes) if classes > 1 else np.ones(len(part))
        best[start : start + len(part)] = part.argmax(1)
        sure[start : start + len(part)] = np.where(total[:, 0] > 0, np.clip(certainty, 0, 1), 0)
    largest = sure.max(initial=0)
    if relative and largest > 0:
        sure /= largest
    best[ids], sure[ids] = labels, 1
    return best, sure


def probabilities(z: np.ndarray) -> np.ndarray:
    """(N, C) float32 class probabilities of a solution: a row's entries over their sum, negative ones taken as 0.

    Rows that nothing reaches have equal ones.
    """
    out = np.empty(z.shape, np.float32)
    for start in range(0, len(z), 1 << 16):
        part = np.maximum(z[start : start + (1 << 16)].astype(np.float64), 0)
        total = part.sum(1, keepdims=True)
        out[start : start + len(part)] = np.where(total > 0, part / np.where(total > 0, total, 1), 1 / z.shape[1])
    return out


def extend(z: np.ndarray, ids: np.ndarray, distances: np.ndarray, gamma: float = 3.0) -> np.ndarray:
    """(q, C) float32 scores of new rows from those of the graph, z (N, C): the induction of Delalleau et al. 2005.

    A new row has the mean of its nearest nodes' scores, ids (q, k) at `distances` (q, k) between rows of length 1,
    weighted by max(0, cos)^gamma; zeros where no weight is above 0.
    """
    ids = blocks.check_ids(ids.ravel(), len(z), "ids").reshape(ids.shape)
    weights = np.maximum(1 - distances.astype(np.float64) ** 2 / 2, 0) ** gamma
    if not np.isfinite(weights).all():
        raise ValueError("distances is not finite")
    out = np.zeros((len(ids), z.shape[1]), np.float32)
    blocks.map_blocks(lambda a, b: _means(z, ids[a:b], weights[a:b], out[a:b]), len(ids), 256)
    return out


@compiled
def _means(z: np.ndarray, ids: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out (q, C) = the means of rows of z, in the order of the ids, float64 until the end."""
    rows, k = ids.shape
    sums = np.empty(z.shape[1])
    for i in range(rows):
        sums[:] = 0
        total = 0.0
        for j in range(k):
            total += weights[i, j]
            for c in range(z.shape[1]):
                sums[c] += weights[i, j] * z[ids[i, j], c]
        if total > 0:
            for c in range(z.shape[1]):
                out[i, c] = np.float32(sums[c] / total)
