"""Trust-region Newton for large softmax problems: conjugate gradients in few digits inside, float64 outside."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ray_al.kernels import products
from ray_al.kernels.conjugate import (
    AT_EDGE,
    FEW_STEPS,
    MAX_INNER,
    MAX_SEARCH,
    MAX_STEPS,
    advance,
    bend,
    bend_halves,
    next_radius,
    soften,
)

_LEVEL = {torch.float64: 1e-12, torch.float32: 1e-6}  # relative: values closer than this differ by rounding
_MAX_CUT = 40  # steps whose conjugate gradients were cut short even in float64
_NEAR = 1e-6  # gradient, relative to the first, from which on points are float64
_STALLED = 1e-3  # from which on they are where a step does not halve it
_ETA = {torch.bfloat16: 0.1, torch.float32: 0.01, torch.float64: 0.01}  # least relative error that steps ask for
_WORTH_HALVES = 2_000_000  # numbers of a product's factors beyond which bfloat16 is faster: twice, with many classes
_TILE = 16, 32  # rows and columns that processors multiply bfloat16 by


class _Point(NamedTuple):
    u: torch.Tensor  # (C, r)
    z: torch.Tensor  # (C, n) logits
    value: float
    probs: torch.Tensor  # (C, n)


class _Step(NamedTuple):
    d: torch.Tensor  # (C, r)
    residual: torch.Tensor  # (C, r) -g - H d
    exact: bool  # as exact as was asked


class _Halves:
    """Rows (n, w) in bfloat16, and room for a step's products of C classes; zeros fill whole tiles of C and w up."""

    def __init__(self, rows: torch.Tensor, classes: int) -> None:
        (n, w), (tall, wide) = rows.shape, _TILE
        self.p = torch.zeros((_up(classes, tall) if classes > tall else classes, _up(w, wide)), dtype=torch.bfloat16)
        self.rows = torch.zeros((n, self.p.shape[1]), dtype=torch.bfloat16)
        self.rows[:, :w] = rows
        self.s = torch.empty((len(self.p), n), dtype=torch.bfloat16)
        self.product = torch.empty_like(self.p)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


class SoftmaxProblem:
    """sum_i nll(softmax(Z_i), label_i) + (|U|^2 - kappa |Z|^2) / 2 with logits Z = U F', F (n, r)."""

    def __init__(self, rows: torch.Tensor, label: torch.Tensor, classes: int, kappa: float) -> None:
        self.kappa, self.count, self.width, self.classes = kappa, *rows.shape, classes
        self.rows = {torch.float64: rows, torch.float32: rows.float()}
        self._label, self._each = label, torch.arange(len(rows))
        worth = products.HALVES and classes * rows.numel() >= _WORTH_HALVES
        self.halves = _Halves(rows, classes) if worth else None

    def at(self, u: torch.Tensor, z: torch.Tensor) -> _Point:
        if z.dtype == torch.float32:
            probs = torch.empty_like(z)
            loss, square = soften(z.numpy(), self._label.numpy(), probs.numpy())
            return _Point(u, z, loss + (float(u.double().square().sum()) - self.kappa * square) / 2, probs)
        top = z.amax(0)
        probs = (z - top).exp_()
        total = probs.sum(0)
        probs /= total
        nll = (total.log_() + top - self._of_labels(z)).sum()
        return _Point(u, z, float(nll + (_dot(u, u) - self.kappa * _dot(z, z)) / 2), probs)

    def _of_labels(self, z: torch.Tensor) -> torch.Tensor:
        """(n,) numbers of (C, n) ones, of each row's label."""
        return z[self._label, self._each]

    def logits(self, u: torch.Tensor) -> torch.Tensor:
        return products.multiply_once(u, self.rows[u.dtype])

    def gradient(self, point: _Point) -> torch.Tensor:
        residual = torch.sub(point.probs, point.z, alpha=self.kappa)
        residual[self._label, self._each] -= 1
        return products.multiply_once(residual, self.rows[point.z.dtype].T).add_(point.u)

    def newton_step(
        self, probs: torch.Tensor, gradient: torch.Tensor, radius: float, eta: float, kind: torch.dtype
    ) -> _Step:
        """Conjugate gradients on H d = -gradient (Steihaug 1983), until |residual| <= eta |gradient| or |d| = radius.

        Products with the rows are made in `kind`: they need no more digits than eta, and each halving of the digits
        doubles their speed or better. `probs` and `gradient` are float32, or float64 for that kind.
        """
        r = gradient.neg()
        d, p = torch.zeros_like(r), r.clone()
        parts = d.view(-1).numpy(), r.view(-1).numpy(), p.view(-1).numpy()
        square = float(r.square().sum())
        goal = eta * eta * square
        for _ in range(MAX_INNER):
            product = self._bent_halves(p, probs) if kind == torch.bfloat16 else self._bent(p, probs)
            square, end = advance(*parts, product.view(-1).numpy(), square, radius)
            if end:
                return _Step(d, r, end == AT_EDGE)
            if square <= goal:
                return _Step(d, r, True)
        return _Step(d, r, False)

    def _bent(self, p: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        """(C, r) the Hessian without the identity times p (C, r)."""
        rows = self.rows[p.dtype]
        s = products.multiply_once(p, rows)  # (C, n)
        bend(probs.numpy(), s.numpy(), probs.numpy().dtype.type(self.kappa))
        return products.multiply_once(s, rows.T)

    def _bent_halves(self, p: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        assert self.halves is not None
        near, (classes, width) = self.halves, p.shape
        near.p[:classes, :width] = p
        torch.mm(near.p, near.rows.T, out=near.s)
        bend_halves(probs.numpy(), near.s[:classes].view(torch.int16).numpy(), probs.numpy().dtype.type(self.kappa))
        torch.mm(near.s, near.rows, out=near.product)
        return near.product[:classes, :width].float()

    def search(self, point: _Point, d: torch.Tensor, ahead: torch.Tensor, slope: float) -> float:
        """A t > 0 at which the value along d, whose logits are `ahead`, still falls, half as steeply as at 0 or less.

        The value is convex in t, and its derivative at 0 is `slope`: Newton's steps, kept between the ends that are
        known. Where they do not get there, the farthest t at which it still falls; 1 where rounding hides all of it.
        """
        target = float(self._of_labels(ahead).sum())
        linear = _dot(point.u, d) - self.kappa * _dot(point.z, ahead) - target
        square = _dot(d, d) - self.kappa * _dot(ahead, ahead)
        low, high, t = 0.0, math.inf, 1.0
        for _ in range(MAX_SEARCH):
            probs = torch.softmax(point.z + t * ahead, 0)
            mean = (probs * ahead).sum(0)
            here = float(mean.sum()) + linear + t * square
            if 0.5 * slope <= here <= 0:
                return t
            bend = float((probs * (ahead - mean).square()).sum()) + square
            low, high = (low, t) if here > 0 else (t, high)
            newton = t - here / bend if bend > 0 else math.inf
            t = newton if low < newton < min(high, 10 * t) else min(10 * t, (low + high) / 2)
        return low or 1.0


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).sum())  # by pairs: torch.dot rounds a thousand times as much


def minimize(problem: SoftmaxProblem, tol: float) -> torch.Tensor:
    """U (C, r) at which |gradient| <= tol |gradient at 0|.

    Trust-region Newton (Lin, Weng & Keerthi 2008): far from the solution Newton steps overshoot, and the radius ends
    the inner iteration early. Near the solution gradients and values are float64: the answer has its digits from them.
    Where the radius stays small for long, as it does on columns of very different scales or on labels that hardly any
    penalty keeps apart from certainty, whole steps and a search along them go on.

    Raises:
        FloatingPointError: not reached, which a `tol` close to the rounding error can cause.
    """
    start = torch.zeros((problem.classes, problem.width))
    point = problem.at(start, torch.zeros((problem.classes, problem.count)))
    gradient = problem.gradient(point)
    first = norm = float(gradient.norm())
    radius, cut, before = math.inf, 0, math.inf
    inner = torch.bfloat16 if problem.halves else torch.float32
    for number in range(MAX_STEPS):
        hard = number >= FEW_STEPS
        if hard:
            radius, inner = math.inf, torch.float32 if inner == torch.bfloat16 else inner
        near = norm <= max(_NEAR, tol) * first or before / 2 < norm <= _STALLED * first
        if point.u.dtype == torch.float32 and (near or hard or inner == torch.float64):
            u = point.u.double()
            point = problem.at(u, problem.logits(u))
            gradient = problem.gradient(point)
            norm = float(gradient.norm())
        if norm <= tol * first:
            return point.u.double()
        eta = max(_ETA[inner], min(0.3, math.sqrt(norm / first)), 0.7 * tol * first / norm)
        # In units of the gradient's norm nothing overflows or vanishes in float32.
        wide = torch.float64 if inner == torch.float64 else torch.float32
        step = problem.newton_step(point.probs.to(wide), (gradient / norm).to(wide), radius / norm, eta, inner)
        if not step.exact and inner != torch.float64:
            inner = torch.float32 if inner == torch.bfloat16 else torch.float64
            continue
        d = step.d.to(point.u.dtype) * norm
        slope = float((gradient * d).sum())
        cut += not step.exact
        if not slope < 0 or cut > _MAX_CUT:
            break
        ahead = problem.logits(d)
        trial = problem.at(point.u + d, point.z + ahead)
        promised = 0.5 * (norm * float((d * step.residual).sum()) - slope)
        gain, length = point.value - trial.value, float(d.norm())
        level = _LEVEL[point.u.dtype] * abs(point.value)
        if hard or (gain < 0.25 * promised and abs(gain) > level):
            # Far too long, as the first step of many classes is: a point along it costs no product.
            part = problem.search(point, d, ahead, slope)
            trial = problem.at(point.u + part * d, point.z + part * ahead)
            gain, radius = point.value - trial.value, part * length
        else:
            radius = next_radius(radius, length, slope, gain, promised)
        if hard or gain > 0 or abs(gain) <= level:
            point = trial
            gradient = problem.gradient(point)
            before, norm = norm, float(gradient.norm())
        else:  # rounding hides where along the step it falls
            before, radius = norm, radius / 4
    raise FloatingPointError(f"no convergence in {number + 1} steps: gradient norm {norm}, goal {tol * first}")
