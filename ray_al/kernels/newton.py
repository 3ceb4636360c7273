"""Trust-region Newton for softmax regression: conjugate gradients in float32 inside, float64 outside."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

_MAX_STEPS = 300
_MAX_INNER = 2000
_LEVEL = 1e-12  # relative: values closer than this differ by rounding


class _Point(NamedTuple):
    u: torch.Tensor  # (C, r)
    z: torch.Tensor  # (C, n) logits
    value: float
    probs: torch.Tensor  # (C, n)


class _Step(NamedTuple):
    d: torch.Tensor  # (C, r)
    residual: torch.Tensor  # (C, r) -g - H d
    at_edge: bool
    exact: bool  # as exact as was asked


class SoftmaxProblem:
    """sum_i nll(softmax(Z_i), label_i) + (|U|^2 - kappa |Z|^2) / 2 with logits Z = U F', F (n, r)."""

    def __init__(self, rows: torch.Tensor, label: torch.Tensor, classes: int, kappa: float) -> None:
        self.rows, self.kappa = rows, kappa
        self.coarse = rows.float()
        self.target = torch.zeros((classes, len(rows)), dtype=rows.dtype)
        self.target[label, torch.arange(len(rows))] = 1

    def at(self, u: torch.Tensor, z: torch.Tensor) -> _Point:
        top = z.amax(0)
        probs = (z - top).exp_()
        total = probs.sum(0)
        probs /= total
        nll = (total.log_() + top).sum() - (z * self.target).sum()
        return _Point(u, z, float(nll + (u.square().sum() - self.kappa * z.square().sum()) / 2), probs)

    def gradient(self, point: _Point) -> torch.Tensor:
        return torch.addmm(point.u, (point.probs - self.target).sub_(point.z, alpha=self.kappa), self.rows)

    def newton_step(self, probs: torch.Tensor, gradient: torch.Tensor, radius: float, eta: float) -> _Step:
        """Conjugate gradients on H d = -gradient (Steihaug 1983), until |residual| <= eta |gradient| or |d| = radius.

        Works in the type of `probs`, whose products need no more digits than eta: float32 halves their cost.
        """
        rows = self.coarse if probs.dtype == torch.float32 else self.rows
        r = gradient.neg()
        d, p = torch.zeros_like(r), r.clone()
        square = float(r.square().sum())
        goal = eta * eta * square
        for _ in range(_MAX_INNER):
            s = torch.mm(p, rows.T)  # (C, n)
            q = probs * s
            q.addcmul_(probs, q.sum(0), value=-1).sub_(s, alpha=self.kappa)
            hp = torch.addmm(p, q, rows)
            curvature = float((p * hp).sum())
            if not curvature > 0:
                return _Step(d, r, False, False)
            ahead = torch.add(d, p, alpha=square / curvature)
            if float(ahead.norm()) >= radius:
                step = _to_edge(d, p, radius)
                return _Step(d.add_(p, alpha=step), r.sub_(hp, alpha=step), True, True)
            d = ahead
            r.sub_(hp, alpha=square / curvature)
            before, square = square, float(r.square().sum())
            if square <= goal:
                return _Step(d, r, False, True)
            p.mul_(square / before).add_(r)
        return _Step(d, r, False, False)


def _to_edge(d: torch.Tensor, p: torch.Tensor, radius: float) -> float:
    """The t >= 0 with |d + t p| = radius."""
    dp, pp = float((d * p).sum()), float(p.square().sum())
    room = max(radius * radius - float(d.square().sum()), 0.0)
    return room / (dp + math.sqrt(dp * dp + pp * room))


def minimize(problem: SoftmaxProblem, tol: float) -> torch.Tensor:
    """U (C, r) at which |gradient| <= tol |gradient at 0|.

    Trust-region Newton (Lin, Weng & Keerthi 2008): far from the solution Newton steps overshoot, and the radius ends
    the inner iteration early. Gradients and values are float64, so the answer has its digits from them.

    Raises:
        FloatingPointError: not reached, which a `tol` close to the rounding error can cause.
    """
    classes, n = problem.target.shape
    zero = torch.zeros((classes, problem.rows.shape[1]), dtype=problem.rows.dtype)
    point = problem.at(zero, torch.zeros((classes, n), dtype=zero.dtype))
    gradient = problem.gradient(point)
    first = norm = float(gradient.norm())
    radius = math.inf
    inner = torch.float32
    for _ in range(_MAX_STEPS):
        if norm <= tol * first:
            return point.u
        eta = max(0.01, min(0.3, math.sqrt(norm / first)), 0.3 * tol * first / norm)
        # In units of the gradient's norm nothing overflows or vanishes in float32.
        step = problem.newton_step(point.probs.to(inner), (gradient / norm).to(inner), radius / norm, eta)
        if not step.exact:
            if inner == torch.float64:
                raise FloatingPointError(f"conjugate gradients failed at gradient norm {norm}, goal {tol * first}")
            inner = torch.float64
            continue
        d = step.d.to(zero.dtype) * norm
        trial = problem.at(point.u + d, point.z + torch.mm(d, problem.rows.T))
        slope = float((gradient * d).sum())
        promised = 0.5 * (norm * float((d * step.residual).sum()) - slope)
        gain = point.value - trial.value
        radius = _radius(radius, float(d.norm()), slope, gain, promised)
        if gain > 1e-4 * promised or abs(gain) <= _LEVEL * abs(point.value):
            point = trial
            gradient = problem.gradient(point)
            norm = float(gradient.norm())
    raise FloatingPointError(f"no convergence in {_MAX_STEPS} steps: gradient norm {norm}, goal {tol * first}")


def _radius(radius: float, length: float, slope: float, gain: float, promised: float) -> float:
    """The next radius, by the ratio of gain and promise and by interpolation along the step."""
    radius = min(radius, length) if math.isinf(radius) else radius
    bend = -gain - slope
    factor = 4.0 if bend <= 0 else max(0.25, -0.5 * slope / bend)
    if gain < 1e-4 * promised:
        return min(max(factor, 0.25) * length, 0.5 * radius)
    if gain < 0.25 * promised:
        return max(0.25 * radius, min(factor * length, 0.5 * radius))
    if gain < 0.75 * promised:
        return max(0.25 * radius, min(factor * length, 4 * radius))
    return max(radius, min(factor * length, 4 * radius))
