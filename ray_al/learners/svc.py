"""Support vector classifier with a grid search, the classifier of Pourkamali-Anaraki & Wakin (2019)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels

KERNELS = ("linear", "rbf")
GRID_C = (0.1, 1.0, 10.0, 100.0)
GRID_GAMMA = ("scale", 1e-3, 1e-2, 1e-1)
BLOCK = 2048  # rows per matrix product: a block of 784 float64 inputs is 13 MB
ABSENT = 1e-12  # probability of a class without labels
SLOPE = 6.0  # of the softmax when nothing can be held out to fit it; typical of fitted ones

Setting = tuple[str, float, str | float]  # kernel, C, gamma
GRID: list[Setting] = [("linear", c, "scale") for c in GRID_C]
GRID += [("rbf", c, gamma) for c in GRID_C for gamma in GRID_GAMMA]


@dataclass(frozen=True)
class Svc:
    """C-SVC, one-vs-one, on one space; kernel, C and gamma by stratified cross-validation on the labeled set.

    The grid is linear and rbf x `GRID_C` x `GRID_GAMMA`; the fields C, kernel and gamma count with `grid=False` only.
    Folds are min(folds, smallest class); where a class has one member nothing is held out, and a grid search becomes
    C=1, rbf, gamma "scale". A single class is predicted constantly. Nothing here is random: `rng` is not drawn from.

    Raises:
        ValueError: a parameter out of range; at `fit`, no labels, or labels of synthetic images.
    """

    space: str | None = None  # None: the pool's first
    grid: bool = True
    folds: int = 3
    C: float = 1.0
    kernel: str = "rbf"
    gamma: str | float = "scale"  # "scale" is 1 / (D * variance of the training inputs)

    heads: ClassVar[frozenset[str]] = frozenset({"probs", "embedding"})

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"svc: folds is {self.folds}; it must be 2 or more")
        if not 0 < self.C < np.inf:
            raise ValueError(f"svc: C is {self.C}; it must be a positive number")
        if self.kernel not in KERNELS:
            raise ValueError(f"svc: unknown kernel {self.kernel!r}; known: {', '.join(KERNELS)}")
        if self.gamma != "scale" and (isinstance(self.gamma, str) or not 0 < self.gamma < np.inf):
            raise ValueError(f'svc: gamma is {self.gamma!r}; it must be "scale" or a positive number')

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model:
        from threadpoolctl import threadpool_limits

        if len(labeled.image_labels):
            raise ValueError("svc learns from pool items only; it cannot use labeled synthetic images")
        ids = np.concatenate([labeled.ids, assume.ids])
        if not len(ids):
            raise ValueError("svc cannot be fitted without labels")
        space = self.space or pool.spaces[0]
        classes, targets = np.unique(np.concatenate([labeled.labels, assume.labels]), return_inverse=True)
        inputs = _vectors(pool.inputs(space, ids))  # (n, D)
        if len(classes) == 1:
            return SvcModel(pool, space, classes)
        with threadpool_limits(1, "blas"):  # the last bits of a matrix product depend on the number of threads
            setting, slope = self._choose(_Gram(inputs), targets)
            return _train(SvcModel(pool, space, classes, slope), inputs, targets, setting)

    def _choose(self, gram: _Gram, targets: np.ndarray) -> tuple[Setting, float]:
        """The best setting (the first of equals, as GridSearchCV) and the softmax slope its held-out rows ask for."""
        from sklearn.model_selection import StratifiedKFold

        settings = GRID if self.grid else [(self.kernel, self.C, self.gamma)]
        folds = min(self.folds, int(np.bincount(targets).min()))
        if folds < 2:
            return ("rbf", 1.0, "scale") if self.grid else settings[0], SLOPE
        splits = list(StratifiedKFold(folds).split(targets, targets))
        best = (-1.0, settings[0], np.empty(0))
        for setting in settings:
            scores = _held_out_scores(gram, targets, splits, setting)  # (n, C)
            hits = scores.argmax(1) == targets
            accuracy = round(float(np.mean([hits[test].mean() for _, test in splits])), 12)
            if accuracy > best[0]:
                best = (accuracy, setting, scores)
        return best[1], _fit_slope(best[2], targets)


@dataclass(frozen=True, eq=False)
class SvcModel:
    """Heads of a fitted SVC. "embedding" is its inputs, (n, D) float32; "probs" is (n, C) float64.

    The class of highest probability is always the one `SVC.predict` returns. See `class_scores` for the rest.
    """

    pool: Pool
    space: str
    classes: np.ndarray  # (K,) labels seen, ascending
    slope: float = SLOPE
    kernel: str = "rbf"
    gamma: float = 1.0
    support: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (S, D) support vectors, by class
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # (K,) support vectors per class
    duals: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (K-1, S)
    intercepts: np.ndarray = field(default_factory=lambda: np.empty(0))  # (P,)

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        inputs = self.pool.inputs(self.space, ids, split)
        if head == "embedding":
            return _vectors(inputs, np.float32)
        if head != "probs":
            raise ValueError(f"svc has no head {head!r}; known: {', '.join(sorted(Svc.heads))}")
        return self._probs(inputs)

    def _probs(self, inputs: np.ndarray) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        probs = np.full((len(inputs), self.pool.classes), ABSENT)
        if len(self.classes) == 1:
            probs[:, self.classes] = 1.0
            inputs = inputs[:0]
        with threadpool_limits(1, "blas"):
            for start in range(0, len(inputs), BLOCK):
                block = _vectors(inputs[start : start + BLOCK])
                # Rows are padded to whole blocks, so that a row's last bits do not depend on what is asked beside it.
                padded = np.concatenate([block, np.zeros((BLOCK - len(block), block.shape[1]))])
                logits = self.slope * class_scores(self._pairwise(padded)[: len(block)], len(self.classes))
                probs[start : start + BLOCK, self.classes] = _softmax(logits)
        return probs / probs.sum(1, keepdims=True)

    def _pairwise(self, rows: np.ndarray) -> np.ndarray:
        """(n, P) decision values; above 0 is a vote for the first class of the pair. libsvm's sum, as products."""
        similar = _kernel(self.kernel, self.gamma, rows, self.support)  # (n, S)
        bounds = pairwise(np.r_[0, np.cumsum(self.counts)])  # of each class among the support vectors
        parts = np.stack([similar[:, a:b] @ self.duals[:, a:b].T for a, b in bounds])  # (K, n, K-1)
        first, second = np.triu_indices(len(self.classes), 1)  # (P,) libsvm's order of the pairs
        return (parts[first, :, second - 1] + parts[second, :, first]).T + self.intercepts


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


class _Gram:
    """Kernel matrices among the labeled rows. One inner product serves the whole grid: 60 fits cost as few do."""

    def __init__(self, inputs: np.ndarray) -> None:
        self.inputs = inputs
        self.inner = inputs @ inputs.T  # (n, n)
        norms = np.diag(self.inner)
        self.squared = np.maximum(norms[:, None] + norms - 2 * self.inner, 0)  # (n, n) squared distances

    def matrix(self, setting: Setting, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(len(rows), len(train)) kernel values; gamma "scale" is taken from the rows `train` alone."""
        kernel, _, gamma = setting
        if kernel == "linear":
            return self.inner[np.ix_(rows, train)]
        return np.exp(-_gamma_value(gamma, self.inputs[train]) * self.squared[np.ix_(rows, train)])


def _gamma_value(gamma: str | float, inputs: np.ndarray) -> float:
    if not isinstance(gamma, str):
        return float(gamma)
    variance = float(inputs.var())
    return 1 / (inputs.shape[1] * variance) if variance else 1.0


def _kernel(kernel: str, gamma: float, rows: np.ndarray, support: np.ndarray) -> np.ndarray:
    inner = rows @ support.T
    if kernel == "linear":
        return inner
    squared = (rows**2).sum(1)[:, None] + (support**2).sum(1) - 2 * inner
    return np.exp(-gamma * np.maximum(squared, 0))


def _held_out_scores(
    gram: _Gram, targets: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]], setting: Setting
) -> np.ndarray:
    from sklearn.svm import SVC

    classes = int(targets.max()) + 1
    scores = np.empty((len(targets), classes))
    for train, test in splits:
        svc = SVC(C=setting[1], kernel="precomputed", decision_function_shape="ovo")
        svc.fit(gram.matrix(setting, train, train), targets[train])
        values = svc.decision_function(gram.matrix(setting, train, test))
        # With two classes scikit-learn turns libsvm's sign around and drops the axis.
        scores[test] = class_scores(-values[:, None] if classes == 2 else values, classes)
    return scores


def _fit_slope(scores: np.ndarray, targets: np.ndarray) -> float:
    """The softmax slope of least held-out negative log-likelihood, with Platt's softened targets."""
    from scipy.optimize import minimize_scalar

    n, classes = scores.shape
    soft = np.full((n, classes), 1 / (n + 2) / classes)
    soft[np.arange(n), targets] += 1 - 1 / (n + 2)

    def loss(slope: float) -> float:
        return -float((soft * np.log(_softmax(slope * scores))).sum())

    return float(minimize_scalar(loss, bounds=(0.5, 50), method="bounded").x)


def _train(empty: SvcModel, inputs: np.ndarray, targets: np.ndarray, setting: Setting) -> SvcModel:
    from sklearn.svm import SVC

    kernel, c, gamma = setting
    value = _gamma_value(gamma, inputs)
    svc = SVC(C=c, kernel="precomputed").fit(_kernel(kernel, value, inputs, inputs), targets)
    sign = -1.0 if len(svc.classes_) == 2 else 1.0  # scikit-learn turns libsvm's sign around for two classes
    return replace(
        empty,
        kernel=kernel,
        gamma=value,
        support=inputs[svc.support_],
        counts=svc.n_support_.astype(np.int64),
        duals=sign * svc.dual_coef_,
        intercepts=sign * svc.intercept_,
    )


def _vectors(rows: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    return rows.reshape(len(rows), -1).astype(dtype)  # (n, D)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
