"""Trust-region Newton for a batch of softmax regressions: `ray_al.kernels.newton`, every problem at its own pace."""

from __future__ import annotations

from typing import NamedTuple

import torch

_MAX_STEPS = 300
_MAX_INNER = 2000
_LOOK = 4  # inner iterations between two looks whether any problem goes on
_MAX_HALVINGS = 40
_LEVEL = 1e-12  # relative: values closer than this differ by rounding


class _Point(NamedTuple):
    u: torch.Tensor  # (G, C, r)
    z: torch.Tensor  # (G, C, n) logits
    value: torch.Tensor  # (G,)
    probs: torch.Tensor  # (G, C, n)


class _Step(NamedTuple):
    d: torch.Tensor  # (G, C, r)
    residual: torch.Tensor  # (G, C, r) -g - H d
    exact: torch.Tensor  # (G,) bool: as exact as was asked


def _sum(x: torch.Tensor) -> torch.Tensor:
    """(G,) sums of each problem's numbers."""
    return x.sum((1, 2))


def _per(x: torch.Tensor) -> torch.Tensor:
    """(G,) to (G, 1, 1)."""
    return x[:, None, None]


class SoftmaxBatch:
    """G problems sum_i nll(softmax(Z_i), label_i) + (|U|^2 - kappa |Z|^2) / 2 with logits Z = U F', F (n, r).

    Problems are filled up to common n and C: rows beyond a problem's own are zeros and do not count (`real`), classes
    beyond have probability 0 (`present`).
    """

    def __init__(
        self,
        rows: torch.Tensor,  # (G, n, r) float64
        label: torch.Tensor,  # (G, n) int64
        real: torch.Tensor,  # (G, n) bool
        present: torch.Tensor,  # (G, C) bool
        kappa: torch.Tensor,  # (G,) float64
    ) -> None:
        self.rows, self.label, self.real, self.kappa = rows, label[:, None], real[:, None], kappa
        self.absent = ~present[:, :, None]
        self.coarse = rows.float()

    def at(self, u: torch.Tensor, z: torch.Tensor) -> _Point:
        probs = z.masked_fill(self.absent, -torch.inf)
        top = probs.amax(1, keepdim=True)
        probs = probs.sub_(top).exp_()
        total = probs.sum(1, keepdim=True)
        probs /= total
        nll = _sum((total.log_() + top - z.gather(1, self.label)) * self.real)
        return _Point(u, z, nll + (_sum(u.square()) - self.kappa * _sum(z.square())) / 2, probs)

    def gradient(self, point: _Point) -> torch.Tensor:
        pull = point.probs - _per(self.kappa) * point.z
        pull.scatter_add_(1, self.label, -torch.ones_like(self.label, dtype=pull.dtype))
        return point.u + torch.bmm(pull, self.rows)  # rows beyond a problem's own are zeros

    def newton_step(
        self, probs: torch.Tensor, gradient: torch.Tensor, radius: torch.Tensor, eta: torch.Tensor, going: torch.Tensor
    ) -> _Step:
        """Conjugate gradients on H d = -gradient (Steihaug 1983), until |residual| <= eta |gradient| or |d| = radius.

        In the type of `probs`. Problems that are not `going` stay at 0.
        """
        rows = self.coarse if probs.dtype == torch.float32 else self.rows
        kappa = _per(self.kappa.to(probs.dtype))
        r = gradient.neg()
        d, p = torch.zeros_like(r), r.clone()
        square = _sum(r.square())
        goal = eta * eta * square
        exact = torch.zeros_like(going)
        for turn in range(_MAX_INNER):
            s = torch.bmm(p, rows.mT)  # (G, C, n)
            q = probs * s
            q.addcmul_(probs, q.sum(1, keepdim=True), value=-1).sub_(s.mul_(kappa))
            hp = torch.baddbmm(p, q, rows)
            curvature = _sum(p * hp)
            going = going & (curvature > 0)
            length = square / curvature
            over = going & (_sum((d + _per(length) * p).square()).sqrt() >= radius)
            length = torch.where(over, _to_edge(d, p, radius), length)
            length = _per(torch.where(going, length, 0.0))
            d += length * p
            r -= length * hp
            before, square = square, _sum(r.square())
            done = over | (going & (square <= goal))
            exact |= done
            going = going & ~done
            p.mul_(_per(torch.where(going, square / before, 0.0))).add_(r)
            if turn % _LOOK == _LOOK - 1 and not bool(going.any()):
                break
        return _Step(d, r, exact)


def _to_edge(d: torch.Tensor, p: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The t >= 0 with |d + t p| = radius."""
    dp, pp = _sum(d * p), _sum(p.square())
    room = (radius * radius - _sum(d.square())).clamp_(min=0)
    return room / (dp + (dp * dp + pp * room).sqrt())


def minimize(problem: SoftmaxBatch, tol: float) -> torch.Tensor:
    """U (G, C, r) at which each |gradient| <= tol |gradient at 0|; see `ray_al.kernels.newton.minimize`.

    Raises:
        FloatingPointError: not reached.
    """
    groups, classes, r = len(problem.rows), problem.absent.shape[1], problem.rows.shape[2]
    zero = problem.rows.new_zeros((groups, classes, r))
    point = problem.at(zero, zero.new_zeros((groups, classes, problem.rows.shape[1])))
    gradient = problem.gradient(point)
    first = norm = _sum(gradient.square()).sqrt()
    radius = torch.full_like(norm, torch.inf)
    precise = torch.zeros_like(norm, dtype=torch.bool)  # whose conjugate gradients need float64
    for _ in range(_MAX_STEPS):
        active = norm > tol * first
        if not bool(active.any()):
            return point.u
        step, exact = _steps(problem, point, gradient, norm, first, radius, active, precise, tol)
        if bool((active & precise & ~exact).any()):
            raise FloatingPointError(f"conjugate gradients failed at gradient norms {norm.tolist()}, tolerance {tol}")
        precise = precise | (active & ~exact)
        moves = active & exact
        d = torch.where(_per(moves), step.d, 0.0) * _per(norm)
        ahead = torch.bmm(d, problem.rows.mT)
        trial = problem.at(point.u + d, point.z + ahead)
        slope = _sum(gradient * d)
        promised = 0.5 * (norm * _sum(d * step.residual) - slope)
        gain, lost = point.value - trial.value, _LEVEL * point.value.abs()
        poor = moves & (gain < 0.25 * promised) & (gain.abs() > lost)
        trial, part = _shorten(problem, point, trial, d, ahead, poor)
        length = part * _sum(d.square()).sqrt()
        radius = torch.where(moves, torch.where(poor, length, _radius(radius, length, slope, gain, promised)), radius)
        gain = point.value - trial.value
        accept = moves & ((gain > 0) | (gain.abs() <= lost))
        radius = torch.where(moves & ~accept, radius / 4, radius)
        point = _where(accept, trial, point)
        del trial
        gradient = problem.gradient(point)
        norm = _sum(gradient.square()).sqrt()
    raise FloatingPointError(f"no convergence in {_MAX_STEPS} steps: gradient norms {norm.tolist()}, tolerance {tol}")


def _where(chosen: torch.Tensor, one: _Point, other: _Point) -> _Point:
    """One point of the problems `chosen` (G,), the other of the others."""
    return _Point(*(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(one, other, strict=True)))


def _shorten(
    problem: SoftmaxBatch, point: _Point, trial: _Point, d: torch.Tensor, ahead: torch.Tensor, poor: torch.Tensor
) -> tuple[_Point, torch.Tensor]:
    """Points along steps d, whose logits are `ahead`, and the parts (G,) of the steps that lead there.

    Steps that are `poor` are halved as long as that lowers the value, which is convex along them. The first step of
    many classes is as many times too long.
    """
    part, going = torch.ones_like(point.value), poor
    for _ in range(_MAX_HALVINGS):
        if not bool(going.any()):
            break
        half = part / 2
        shorter = problem.at(point.u + _per(half) * d, point.z + _per(half) * ahead)
        going = going & (shorter.value < trial.value)
        trial, part = _where(going, shorter, trial), torch.where(going, half, part)
    return trial, part


def _steps(
    problem: SoftmaxBatch,
    point: _Point,
    gradient: torch.Tensor,
    norm: torch.Tensor,
    first: torch.Tensor,
    radius: torch.Tensor,
    active: torch.Tensor,
    precise: torch.Tensor,
    tol: float,
) -> tuple[_Step, torch.Tensor]:
    """The next step of every active problem, float64 in units of its gradient's norm, and which are exact enough."""
    scale = norm.clamp(min=torch.finfo(norm.dtype).tiny)
    eta = torch.maximum((norm / first).sqrt().clamp_(0.01, 0.3), 0.7 * tol * first / scale)
    # In units of the gradient's norm nothing overflows or vanishes in float32.
    unit, reach = gradient / _per(scale), radius / scale
    steps = []
    for kind, chosen in ((torch.float32, active & ~precise), (torch.float64, active & precise)):
        if bool(chosen.any()):
            step = problem.newton_step(point.probs.to(kind), unit.to(kind), reach.to(kind), eta.to(kind), chosen)
            steps.append((chosen, _Step(step.d.double(), step.residual.double(), step.exact)))
    chosen, found = steps[0]
    for others, other in steps[1:]:
        found = _Step(
            torch.where(_per(others), other.d, found.d),
            torch.where(_per(others), other.residual, found.residual),
            torch.where(others, other.exact, found.exact),
        )
    return found, found.exact


def _radius(
    radius: torch.Tensor, length: torch.Tensor, slope: torch.Tensor, gain: torch.Tensor, promised: torch.Tensor
) -> torch.Tensor:
    """The next radius after a step that was not poor, by the ratio of gain and promise and by interpolation."""
    radius = torch.where(radius.isinf(), length, radius)
    bend = -gain - slope
    factor = torch.where(bend <= 0, 4.0, (-0.5 * slope / bend).clamp(min=0.25))
    most = torch.minimum(factor * length, 4 * radius)
    return torch.maximum(torch.where(gain < 0.75 * promised, 0.25 * radius, radius), most)
