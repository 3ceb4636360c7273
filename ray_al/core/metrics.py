"""Test metrics of class probabilities, in numpy."""

from __future__ import annotations

import numpy as np


def classification_metrics(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, negative log-likelihood (nats) and expected calibration error.

    Balanced accuracy and macro F1 average over the classes present in `labels`; the calibration error uses `bins`
    equal-width bins of the top probability (Guo et al. 2017).

    Args:
        probs: (n, C), rows sum to 1.
        labels: (n,) in 0..C-1.

    Raises:
        FloatingPointError: a probability is not finite.
    """
    probs = np.asarray(probs)
    if not np.isfinite(probs).all():
        raise FloatingPointError("the model returned probabilities that are not finite")
    n, classes = probs.shape
    rows = np.arange(n)
    predicted = probs.argmax(1)  # (n,)
    hits = predicted == labels
    truth_counts = np.bincount(labels, minlength=classes)
    hit_counts = np.bincount(labels[hits], minlength=classes)
    predicted_counts = np.bincount(predicted, minlength=classes)
    present = truth_counts > 0
    f1 = 2 * hit_counts[present] / (truth_counts[present] + predicted_counts[present])
    confidence, of_label = (probs[rows, own].astype(np.float64) for own in (predicted, labels))
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(bin_of, confidence - hits, minlength=bins)  # sum of (confidence - hit) per bin
    return {
        "accuracy": float(hits.mean()),
        "balanced_accuracy": float((hit_counts[present] / truth_counts[present]).mean()),
        "macro_f1": float(f1.mean()),
        "nll": float(-np.log(np.maximum(of_label, 1e-12)).mean()),
        "ece": float(np.abs(gap).sum() / n),
    }
