"""What lies between an SVC's inputs and its decisions: kernels, training, and the grid search by cross-validation.

All candidates and folds of a search share one matrix of inner products, and candidates that differ in C alone share
their kernel matrices: a search of 60 fits then takes about as long as the fits do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.learners.libsvm import Machine, by_vectors, decisions, pairwise, train

GRID_C = (0.1, 1.0, 10.0, 100.0)
GRID_GAMMA = ("scale", 1e-3, 1e-2, 1e-1)
BLOCK = 512  # rows per matrix product: a block of 784 float64 inputs is 3 MB
MATRIX_ROWS = 6000  # up to here a kernel is written out as a matrix (288 MB); beyond, libsvm asks for its rows

Setting = tuple[str, float, str | float]  # kernel, C, gamma
GRID: list[Setting] = [("linear", c, "scale") for c in GRID_C]
GRID += [("rbf", c, gamma) for c in GRID_C for gamma in GRID_GAMMA]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A kernel, its support vectors, and what they count."""

    kernel: str
    c: float
    gamma: float
    vectors: np.ndarray  # (S, D) float64, by class
    machine: Machine

    def decisions(self, rows: np.ndarray) -> np.ndarray:
        """(m, P) one-vs-one decision values of rows (m, D). A row's bits do not depend on what is asked beside it."""
        found = []
        for start in range(0, max(len(rows), 1), BLOCK):
            block = as_vectors(rows[start : start + BLOCK])
            padded = np.concatenate([block, np.zeros((BLOCK - len(block), block.shape[1]))])
            similar = similarity(self.kernel, self.gamma, padded, self.vectors)  # (BLOCK, S)
            found.append(pairwise(self.machine, similar)[: len(block)])
        return np.concatenate(found)


def fit(inputs: np.ndarray, targets: np.ndarray, setting: Setting) -> Fitted:
    """Train one setting on (n, D) float64 inputs; `targets` are 0..K-1, none left out."""
    kernel, c, gamma = setting
    value = gamma_of(gamma, inputs)
    if len(inputs) > MATRIX_ROWS:
        machine = by_vectors(inputs, targets, c, kernel, value)
    else:
        machine = train(similarity(kernel, value, inputs, inputs), targets, c)
    return Fitted(kernel, c, value, inputs[machine.support], machine)


def search(
    inputs: np.ndarray, targets: np.ndarray, settings: Sequence[Setting], folds: int
) -> tuple[Setting, np.ndarray]:
    """The setting that GridSearchCV would choose, and the (n, K) scores of each row by the fits it was held out of.

    That is the highest mean of the folds' accuracies over stratified folds, the first of equals. Every class has
    `folds` members or more.
    """
    from sklearn.model_selection import StratifiedKFold

    scores = np.empty((len(settings), len(targets), int(targets.max()) + 1))
    splits = list(StratifiedKFold(folds).split(targets, targets))
    hits = np.empty((len(settings), folds))
    inner = inputs @ inputs.T if len(inputs) <= MATRIX_ROWS else None  # (n, n)
    for number, (kept, held) in enumerate(splits):
        values: Iterable[np.ndarray]
        if inner is None:
            values = (fit(inputs[kept], targets[kept], setting).decisions(inputs[held]) for setting in settings)
        else:
            values = _of_matrix(inner, inputs, targets, kept, held, settings)
        for position, found in enumerate(values):
            scores[position, held] = class_scores(found, scores.shape[2])
            hits[position, number] = (scores[position, held].argmax(1) == targets[held]).mean()
    # Not rounded: where two means differ by their last bit, GridSearchCV takes the larger one, and so does this.
    best = int(hits.mean(1).argmax())
    return settings[best], scores[best]


def _of_matrix(
    inner: np.ndarray,
    inputs: np.ndarray,
    targets: np.ndarray,
    kept: np.ndarray,
    held: np.ndarray,
    settings: Sequence[Setting],
) -> Iterator[np.ndarray]:
    """Decision values of the held-out rows by each setting, in order; the kernels are cut out of `inner`."""
    norms, rows = np.diag(inner), {"kept": kept, "held": held}
    products = {name: inner[np.ix_(which, kept)] for name, which in rows.items()}
    squared = {name: np.maximum(norms[rows[name]][:, None] + norms[kept] - 2 * p, 0) for name, p in products.items()}
    made: dict[tuple[str, str | float], dict[str, np.ndarray]] = {}
    for kernel, c, gamma in settings:
        if (kernel, gamma) not in made:
            value = -gamma_of(gamma, inputs[kept])
            made[kernel, gamma] = (
                products if kernel == "linear" else {name: np.exp(value * d) for name, d in squared.items()}
            )
        matrices = made[kernel, gamma]
        yield decisions(train(matrices["kept"], targets[kept], c), matrices["held"])


def gamma_of(gamma: str | float, inputs: np.ndarray) -> float:
    """The number; of "scale", 1 / (D * variance of the inputs), or 1 where they do not vary."""
    if not isinstance(gamma, str):
        return float(gamma)
    variance = float(inputs.var())
    return 1 / (inputs.shape[1] * variance) if variance else 1.0


def similarity(kernel: str, gamma: float, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) kernel values of rows (n, D) and others (m, D)."""
    inner = rows @ others.T
    if kernel == "linear":
        return inner
    squared = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * inner
    return np.exp(-gamma * np.maximum(squared, 0))


def class_scores(pairwise: np.ndarray, classes: int) -> np.ndarray:
    """(n, C) scores from (n, P) one-vs-one decision values; the largest belongs to the class that wins the vote.

    A class scores the mean of tanh(value) over its pairs. With the pairs' values as log-odds that is, up to the tanh,
    the least-squares fit of a softmax's logits; the tanh keeps a class far from the question from outweighing the
    others. Where another class than the vote's winner scores highest, the two scores trade places. (libsvm's own
    Platt scaling repeats an internal, randomly split cross-validation and can contradict `predict`.)
    """
    first, second = np.eye(classes)[np.stack(np.triu_indices(classes, 1))]  # (P, C) each, one-hot
    votes = (pairwise > 0) @ first + (pairwise <= 0) @ second  # (n, C)
    voted = votes.argmax(1)  # ties go to the lower class, as in libsvm
    scores = np.tanh(pairwise) @ (first - second) / classes
    rows, top = np.arange(len(scores)), scores.argmax(1)
    scores[rows, top], scores[rows, voted] = scores[rows, voted], scores[rows, top]
    return scores


def as_vectors(rows: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    return rows.reshape(len(rows), -1).astype(dtype)  # (n, D)
