"""Multinomial logistic regression for many heads at once, converged in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks

ABSENT_BIAS = -1e4  # exp of it is 0 in any precision, and 0 * log 0 stays 0 as -inf would not
FEW = 1 << 14  # numbers of a solution up to which two of them stay in the first cache, or near it
SMALL = 5_000_000  # numbers of a product's factors up to which one call of machine code is faster
LOST = 1e-14  # of each square in sums of n of them, in float64, times n
NEGLIGIBLE = 1e-6  # rounding, relative to the penalty, up to which probabilities keep their digits
CERTAINTY = 0.01  # measured: fewest products on digits, MNIST and image embeddings


class LinearHead(NamedTuple):
    """logits = x @ weights.T + bias."""

    weights: np.ndarray  # (C, d) float32
    bias: np.ndarray  # (C,) float32


class _Features(NamedTuple):
    """Coordinates U in which the problem is well conditioned.

    With M = kappa X'X + l2 I (X centered), U U' = W M W', so the penalty is l2 |W|^2 = |U|^2 - kappa |Z|^2 with the
    logits Z = U F' at hand: it costs no product of its own.
    """

    rows: torch.Tensor  # (n, r) F
    back: torch.Tensor  # (r, d): W = U back


def fit_logistic(
    problems: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, l2: float = 1.0, tol: float = 1e-7
) -> list[LinearHead]:
    """Minimize sum_i nll_i + l2/2 |W|^2 (bias not penalized) for every problem (x (n, d), y (n,) in 0..classes-1).

    The same objective as scikit-learn's LogisticRegression(C=1/l2); where y has two classes, scikit-learn keeps one row
    of weights for both, and C=2/l2 is the same there. A class that y lacks has no minimum (its bias goes to minus
    infinity); it gets zero weights and the bias `ABSENT_BIAS`, hence probability 0. Each answer depends on its problem
    alone, bit by bit: not on the other problems of the call, nor on the number of threads.

    Args:
        l2: above 0.
        tol: ends when the gradient, in preconditioned coordinates, is at most `tol` times that at zero. The default
            puts probabilities of rows like those of x within about 1e-5 of the exact ones, unless columns lie far
            from zero for their spread: weights and rows are float32, which costs 3e-4 at 10,000 times the spread.

    Raises:
        ValueError: x is not finite, shapes do not fit, a label is outside 0..classes-1, l2 or tol is not positive.
        FloatingPointError: no convergence.
    """
    if not l2 > 0 or not tol > 0:
        raise ValueError(f"l2 and tol must be positive, got {l2} and {tol}")
    for x, y in problems:
        blocks.check_matrix(x)
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise ValueError(f"y {y.shape} of {y.dtype} does not fit x {x.shape}: one integer label a row")
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(f"label {y.min() if y.min() < 0 else y.max()} is outside 0..{classes - 1}")
    return blocks.run(lambda problem: _fit(problem[0], problem[1], classes, l2, tol), problems)


def _fit(x: np.ndarray, y: np.ndarray, classes: int, l2: float, tol: float) -> LinearHead:
    from ray_al.kernels.newton import SoftmaxProblem, minimize  # compiled loops, which devices do without
    from ray_al.kernels.small_fit import fit_small
    from ray_al.kernels.small_newton import minimize_small

    small = fit_small(x, y, classes, l2, tol)
    if small:
        return LinearHead(*small)
    present, label = np.unique(y, return_inverse=True)
    weights = np.zeros((classes, x.shape[1]), np.float32)
    bias = np.full(classes, ABSENT_BIAS, np.float32)
    rows = blocks.double_rows(x)
    blocks.check_finite(rows, "x")
    if len(present) == 1:
        bias[present] = 0
        return LinearHead(weights, bias)
    mean = rows.mean(0)
    # kappa stands for the mean curvature p (1 - p) of the likelihood: 1/C at the start, near 0 where the fit is sure.
    kappa = CERTAINTY / len(present)
    # Centered columns take the bias out of the penalty's way: it is a coordinate of its own, orthogonal to the others.
    features = _features(rows.sub_(mean), l2, kappa)
    unit = (kappa * len(x)) ** -0.5  # the column that makes |U|^2 - kappa |Z|^2 free of the bias
    columns = torch.cat([features.rows, torch.full((len(x), 1), unit, dtype=rows.dtype)], 1)
    found = None
    if len(present) * columns.shape[1] <= FEW and len(present) * columns.numel() <= SMALL:
        found = minimize_small(columns.numpy(), label, len(present), kappa, tol)[0]
    if found is None:
        solution = minimize(SoftmaxProblem(columns, torch.from_numpy(label), len(present), kappa), tol)
    else:
        solution = torch.from_numpy(found)  # (C', r + 1)
    w = solution[:, :-1] @ features.back
    weights[present] = w.numpy()
    bias[present] = (solution[:, -1] * unit - (w * mean).sum(1)).numpy()
    return LinearHead(weights, bias)


def _features(x: torch.Tensor, l2: float, kappa: float) -> _Features:
    n, d = x.shape
    # What rounding costs X'X and XX'. Where the penalty is not far above it, as with columns of very different scales,
    # X itself is factored: slower, but no scale is squared.
    lost = LOST * n * float(x.square().sum())
    if 3 * n < 2 * d:
        # Few rows: W lies in their span. X = E sqrt(diag(s)) V, F = E sqrt(s / m) with m = kappa s + l2.
        if lost > NEGLIGIBLE * l2:
            vectors, roots, right = torch.linalg.svd(x, full_matrices=False)
            keep = roots > 1e-14 * n * roots[0].clamp(min=torch.finfo(x.dtype).tiny)
            vectors, roots = vectors[:, keep], roots[keep]
            m = roots.square() * kappa + l2
            return _Features(vectors * (roots / m.sqrt()), right[keep] / m.sqrt()[:, None])
        values, vectors = torch.linalg.eigh(x @ x.T)
        keep = values > 1e-14 * n * values[-1].clamp(min=torch.finfo(x.dtype).tiny)
        values, vectors = values[keep], vectors[:, keep]
        m = values * kappa + l2
        return _Features(vectors * (values / m).sqrt(), (vectors / (values * m).sqrt()).T @ x)
    # M = L L', U = W L, F = X L^-T.
    if kappa * lost > NEGLIGIBLE * l2:
        stacked = torch.cat([x * kappa**0.5, torch.eye(d, dtype=x.dtype).mul_(l2**0.5)])
        lower = torch.linalg.qr(stacked, mode="r").R.T
    else:
        m = (x.T @ x).mul_(kappa)
        m.diagonal().add_(l2)
        lower = torch.linalg.cholesky(m)
    inverse = torch.linalg.solve_triangular(lower, torch.eye(d, dtype=x.dtype), upper=False)
    return _Features(x @ inverse.T, inverse)
