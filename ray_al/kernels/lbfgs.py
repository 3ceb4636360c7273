"""L-BFGS for smooth convex functions."""

from __future__ import annotations

from collections.abc import Callable

import torch

_HISTORY = 10
_MIN_STEP = 1e-10


def minimize(
    function: Callable[[torch.Tensor], tuple[float, torch.Tensor]], start: torch.Tensor, tol: float, max_iter: int
) -> torch.Tensor:
    """Minimize a convex function(x) -> (value, gradient) from `start` until |gradient| <= tol |gradient at start|.

    L-BFGS (Liu & Nocedal 1989) with backtracking. Give it coordinates in which the curvature is at most 1.

    Raises:
        FloatingPointError: not reached in `max_iter` steps, or no step is downhill any more.
    """
    x = start
    value, gradient = function(x)
    goal = tol * float(gradient.norm())
    history: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for _ in range(max_iter):
        if float(gradient.norm()) <= goal:
            return x
        direction = _direction(gradient, history)
        slope = float((gradient * direction).sum())
        step = 1.0
        while True:
            trial = x + step * direction
            new_value, new_gradient = function(trial)
            new_slope = float((new_gradient * direction).sum())
            # Near the end values differ by rounding only; then the slope, which does not, decides.
            level = abs(new_value - value) <= 1e-13 * abs(value) and abs(new_slope) <= 0.9 * abs(slope)
            if new_value <= value + 1e-4 * step * slope or level:
                break
            step *= 0.5 if new_slope <= slope else min(max(slope / (slope - new_slope), 0.1), 0.5)
            if step < _MIN_STEP:
                raise FloatingPointError(f"no downhill step is left at gradient norm {float(gradient.norm())}")
        s, y = trial - x, new_gradient - gradient
        curvature = float((s * y).sum())
        if curvature > 0:
            history = [*history[1 - _HISTORY :], (s, y, curvature)]
        x, value, gradient = trial, new_value, new_gradient
    raise FloatingPointError(f"no convergence in {max_iter} steps: gradient norm {float(gradient.norm())}, goal {goal}")


def _direction(gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor, float]]) -> torch.Tensor:
    """Minus the inverse Hessian's estimate times the gradient, by the two-loop recursion."""
    q = gradient.neg()
    weights = []
    for s, y, curvature in reversed(history):
        weight = float((s * q).sum()) / curvature
        q.sub_(y, alpha=weight)
        weights.append(weight)
    if history:
        _, y, curvature = history[-1]
        q *= curvature / float(y.square().sum())
    for (s, y, curvature), weight in zip(history, reversed(weights), strict=True):
        q.add_(s, alpha=weight - float((y * q).sum()) / curvature)
    return q
