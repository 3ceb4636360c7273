"""Support vector classifier with a grid search, the classifier of Pourkamali-Anaraki & Wakin (2019)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.learners.svc_search import GRID, Fitted, Setting, as_vectors, class_scores, fit, search

KERNELS = ("linear", "rbf")
ABSENT = 1e-12  # probability of a class without labels
SLOPE = 6.0  # of the softmax when nothing can be held out to fit it; typical of fitted ones


@dataclass(frozen=True)
class Svc:
    """C-SVC, one-vs-one, on one space; kernel, C and gamma by stratified cross-validation on the labeled set.

    The grid is linear and rbf x `GRID_C` x `GRID_GAMMA`; the fields C, kernel and gamma count with `grid=False` only.
    The choice and the predictions are those of scikit-learn's GridSearchCV over its SVC, in a fraction of the time.
    Folds are min(folds, smallest class); where a class has one member nothing is held out, and a grid search becomes
    C=1, rbf, gamma "scale". A single class is predicted constantly. Nothing here is random: `rng` is not drawn from.

    Raises:
        ValueError: a parameter out of range; at `fit`, no labels, labels of synthetic images, or NaN among the inputs.
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
        if len(labeled.image_labels):
            raise ValueError("svc learns from pool items only; it cannot use labeled synthetic images")
        ids = np.concatenate([labeled.ids, assume.ids])
        if not len(ids):
            raise ValueError("svc cannot be fitted without labels")
        space = self.space or pool.spaces[0]
        classes, targets = np.unique(np.concatenate([labeled.labels, assume.labels]), return_inverse=True)
        if len(classes) == 1:
            return SvcModel(pool, space, classes)
        inputs = as_vectors(pool.inputs(space, ids))  # (n, D)
        if not np.isfinite(inputs).all():  # libsvm would run on such inputs for ever
            raise ValueError(f"svc: space {space!r} has values that are not finite among the labeled items")
        with one_blas_thread():
            setting, slope = self._choose(inputs, targets)
            return SvcModel(pool, space, classes, slope, fit(inputs, targets, setting))

    def _choose(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[Setting, float]:
        """The best setting, and the softmax slope that its held-out rows ask for."""
        settings = GRID if self.grid else [(self.kernel, self.C, self.gamma)]
        folds = min(self.folds, int(np.bincount(targets).min()))
        if folds < 2:
            return ("rbf", 1.0, "scale") if self.grid else settings[0], SLOPE
        setting, scores = search(inputs, targets, settings, folds)
        return setting, _fit_slope(scores, targets)


@dataclass(frozen=True, eq=False)
class SvcModel:
    """Heads of a fitted SVC. "embedding" is its inputs, (n, D) float32; "probs" is (n, C) float64.

    The class of highest probability is always the one `SVC.predict` returns. See `class_scores` for the rest.
    """

    pool: Pool
    space: str
    classes: np.ndarray  # (K,) labels seen, ascending
    slope: float = SLOPE
    fitted: Fitted | None = None  # None where only one class was seen

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        inputs = self.pool.inputs(self.space, ids, split)
        if head == "embedding":
            return as_vectors(inputs, np.float32)
        if head != "probs":
            raise ValueError(f"svc has no head {head!r}; known: {', '.join(sorted(Svc.heads))}")
        probs = np.full((len(inputs), self.pool.classes), ABSENT)
        if self.fitted is None:
            probs[:, self.classes] = 1.0
        else:
            with one_blas_thread():
                scores = class_scores(self.fitted.decisions(inputs), len(self.classes))
            probs[:, self.classes] = _softmax(self.slope * scores)
        return probs / probs.sum(1, keepdims=True)


def one_blas_thread() -> Any:
    """A context of matrix products by one thread: their last bits depend on the number of threads."""
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller() -> Any:
    """Finding the libraries takes a millisecond; numpy, scipy and scikit-learn have loaded theirs before."""
    import sklearn.svm
    from threadpoolctl import ThreadpoolController

    assert sklearn.svm
    return ThreadpoolController()


def _fit_slope(scores: np.ndarray, targets: np.ndarray) -> float:
    """The softmax slope of least held-out negative log-likelihood, with Platt's softened targets."""
    from scipy.optimize import minimize_scalar

    n, classes = scores.shape
    soft = np.full((n, classes), 1 / (n + 2) / classes)
    soft[np.arange(n), targets] += 1 - 1 / (n + 2)

    def loss(slope: float) -> float:
        return -float((soft * np.log(_softmax(slope * scores))).sum())

    return float(minimize_scalar(loss, bounds=(0.5, 50), method="bounded").x)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
