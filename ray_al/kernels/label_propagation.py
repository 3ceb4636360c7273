"""Label propagation over a kNN graph (Zhou et al. 2004; Iscen et al. 2019, arXiv 1904.04717): many solves as one block.

(I - alpha W) Z = Y is solved by conjugate gradients, all columns of all requests side by side; a column's bits are the
same in whatever company it is solved (`ray_al.kernels.panel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.kernels import blocks, panel
from ray_al.kernels.affinity import Affinity


@dataclass(frozen=True)
class Sources:
    """Y (N, c), given by its entries other than 0, and how to solve for it: y[nodes, columns] = values."""

    nodes: np.ndarray  # (m,) int64
    columns: np.ndarray  # (m,) int64 in 0..count-1; each (node, column) once
    values: np.ndarray  # (m,) float64
    count: int  # c
    alpha: float = 0.99
    tol: float = 1e-6  # of the residual's norm, relative to that of y, column by column
    iterations: int | None = None  # stop here, however far; None: go on until `tol` is reached


def solve(weights: Affinity, requests: Sequence[Sources]) -> list[np.ndarray]:
    """Z (N, c) float32 of every request: the solutions of (I - alpha W) Z = Y.

    Conjugate gradients from zero, with directions in float32 and all else in float64, so that the residual does reach
    `tol`, 1e-10 for example, before Z is rounded. Z is 0 where nothing is connected with a source.

    Raises:
        ValueError: an alpha is not in [0, 1), a source is not finite or no node of the graph, or no solution is found.
    """
    for request in requests:
        _check(request, weights.count)
    out = [np.zeros((weights.count, request.count), np.float32) for request in requests]
    where = [(r, c) for r, request in enumerate(requests) for c in range(request.count)]
    width = panel.width_of(weights.count)
    for start in range(0, len(where), width):
        _solve_panel(weights, requests, where[start : start + width], out)
    return out


def _solve_panel(
    weights: Affinity, requests: Sequence[Sources], where: Sequence[tuple[int, int]], out: list[np.ndarray]
) -> None:
    """Solve for columns (request, column); each is rounded to what `out` holds."""
    y = np.zeros((weights.count, len(where)))
    for place, (r, column) in enumerate(where):
        own = requests[r].columns == column
        y[requests[r].nodes[own], place] = requests[r].values[own]
    owners = [requests[r] for r, _ in where]
    limits = [np.inf if request.iterations is None else request.iterations for request in owners]

    def take(place: int, z: np.ndarray, residual: np.ndarray) -> None:
        r, column = where[place]
        out[r][:, column] = z

    alpha, tol = (np.array([getattr(request, name) for request in owners]) for name in ("alpha", "tol"))
    panel.solve_columns(weights, y, alpha, tol, np.array(limits), take)


def _check(request: Sources, count: int) -> None:
    blocks.check_ids(request.nodes, count, "nodes")
    blocks.check_ids(request.columns, request.count, "columns")
    if not 0 <= request.alpha < 1:
        raise ValueError(f"alpha is {request.alpha}, but it must be at least 0 and below 1")
    if not request.tol > 0:
        raise ValueError(f"tol is {request.tol}, but it must be above 0")
    if not np.isfinite(request.values).all():
        raise ValueError(f"a source is {request.values[~np.isfinite(request.values)][0]}")
