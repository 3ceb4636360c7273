"""Label propagation over a kNN graph (Zhou et al. 2004; Iscen et al. 2019, arXiv 1904.04717): many solves as one block.

(I - alpha W) Z = Y is solved by conjugate gradients, all columns of all requests side by side: an edge of the graph is
read once for a whole panel of columns. Nothing in a column's arithmetic depends on the columns beside it: each has its
own steps, sums in one fixed order over fixed row blocks, and an end of its own. So a column's bits are the same in
whatever company it is solved, and for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.affinity import Affinity
from ray_al.kernels.compiled import compiled

_ROWS = 1024  # per block: part of the result's definition, since it fixes the order of the sums
_CACHE = 1 << 24  # bytes of a panel of directions that stay near the processor
MOST = 1000  # iterations after which a solve has failed: a few hundred are enough at alpha 0.99


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
    width = 32 if weights.count * 4 * 32 <= _CACHE else 64
    for start in range(0, len(where), width):
        _solve_panel(weights, requests, where[start : start + width], out)
    return out


def _check(request: Sources, count: int) -> None:
    blocks.check_ids(request.nodes, count, "nodes")
    blocks.check_ids(request.columns, request.count, "columns")
    if not 0 <= request.alpha < 1:
        raise ValueError(f"alpha is {request.alpha}, but it must be at least 0 and below 1")
    if not request.tol > 0:
        raise ValueError(f"tol is {request.tol}, but it must be above 0")
    if not np.isfinite(request.values).all():
        raise ValueError(f"a source is {request.values[~np.isfinite(request.values)][0]}")


@dataclass
class _Panel:
    """The columns under way: all arrays are (N, c), or (c,)."""

    members: np.ndarray  # (c,) places in the list that was given
    alpha: np.ndarray
    z: np.ndarray  # float64
    residual: np.ndarray  # float64
    direction: np.ndarray  # float32
    squares: np.ndarray  # of the residuals
    enough: np.ndarray  # squares at which a column ends
    limit: np.ndarray  # iterations at which it ends

    def keep(self, kept: np.ndarray) -> _Panel:
        """The panel of some of the columns."""
        return _Panel(*(np.ascontiguousarray(array[..., kept]) for array in vars(self).values()))


def _solve_panel(
    weights: Affinity, requests: Sequence[Sources], where: Sequence[tuple[int, int]], out: list[np.ndarray]
) -> None:
    panel = _begin(weights.count, requests, where)
    product = np.empty(panel.z.shape)  # (N, c) float64, (I - alpha W) times the directions
    iteration = 0
    while True:
        active = (panel.squares > panel.enough) & (iteration < panel.limit)
        if 2 * active.sum() <= len(active):  # the ended columns leave, and the panel becomes narrower
            for c in np.flatnonzero(~active):
                request, column = where[panel.members[c]]
                out[request][:, column] = panel.z[:, c]
            if not active.any():
                return
            panel = panel.keep(active)
            product, active = np.empty(panel.z.shape), active[active]
        if iteration >= MOST and np.isinf(panel.limit[active]).any():
            worst = np.sqrt((panel.squares / panel.enough)[active].max())
            raise ValueError(f"conjugate gradients are {worst:.1e} times the tolerance away after {MOST} iterations")
        _step(weights, panel, product, active)
        iteration += 1


def _begin(count: int, requests: Sequence[Sources], where: Sequence[tuple[int, int]]) -> _Panel:
    width = len(where)
    residual = np.zeros((count, width))
    for place, (r, column) in enumerate(where):
        own = requests[r].columns == column
        residual[requests[r].nodes[own], place] = requests[r].values[own]
    squares = _total(_map(lambda a, b, sums: _squares(residual[a:b], sums), count, width))
    tol = np.array([requests[r].tol for r, _ in where])
    limits = [requests[r].iterations for r, _ in where]
    return _Panel(
        members=np.arange(width),
        alpha=np.array([requests[r].alpha for r, _ in where]),
        z=np.zeros((count, width)),
        residual=residual,
        direction=residual.astype(np.float32),
        squares=squares,
        enough=tol**2 * squares,
        limit=np.array([np.inf if limit is None else limit for limit in limits]),
    )


def _step(weights: Affinity, panel: _Panel, product: np.ndarray, active: np.ndarray) -> None:
    """One iteration of the active columns; the others stay as they are."""
    count, width = panel.z.shape
    z, residual, direction = panel.z, panel.residual, panel.direction

    def apply(a: int, b: int, sums: np.ndarray) -> None:
        _apply(weights.starts, weights.columns, weights.values, panel.alpha, direction, product, a, b, sums)

    curved = _total(_map(apply, count, width))
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(active, panel.squares / curved, 0.0)

    def advance(a: int, b: int, sums: np.ndarray) -> None:
        _advance(z[a:b], residual[a:b], direction[a:b], product[a:b], step, sums)

    squares = _total(_map(advance, count, width))
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(active, squares / panel.squares, 0.0)
    blocks.map_blocks(lambda a, b: _turn(direction[a:b], residual[a:b], turn), count, _ROWS)
    panel.squares = np.where(active, squares, panel.squares)


def _map(work: Callable[[int, int, np.ndarray], None], count: int, width: int) -> list[np.ndarray]:
    """The sums (width,) that work(start, stop, sums) makes of every row block, in order."""

    def block(start: int, stop: int) -> np.ndarray:
        sums = np.zeros(width)
        work(start, stop, sums)
        return sums

    return blocks.map_blocks(block, count, _ROWS)


def _total(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Their sum, in order: numpy's own would take another order for a single column."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    return total


@compiled
def _apply(
    starts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    alpha: np.ndarray,
    direction: np.ndarray,
    product: np.ndarray,
    start: int,
    stop: int,
    sums: np.ndarray,
) -> None:
    """Rows [start, stop) of product = (I - alpha W) direction; sums += direction * product, column by column."""
    width = direction.shape[1]
    for i in range(start, stop):
        own, out = direction[i], product[i]
        for c in range(width):
            out[c] = 0.0
        for e in range(starts[i], starts[i + 1]):
            value, row = np.float64(values[e]), direction[columns[e]]
            for c in range(width):
                out[c] += value * np.float64(row[c])
        for c in range(width):
            out[c] = np.float64(own[c]) - alpha[c] * out[c]
            sums[c] += np.float64(own[c]) * out[c]


@compiled
def _advance(
    z: np.ndarray, residual: np.ndarray, direction: np.ndarray, product: np.ndarray, step: np.ndarray, sums: np.ndarray
) -> None:
    """z += step * direction; residual -= step * product; sums += residual^2."""
    rows, width = z.shape
    for i in range(rows):
        for c in range(width):
            z[i, c] += step[c] * np.float64(direction[i, c])
            left = residual[i, c] - step[c] * product[i, c]
            residual[i, c] = left
            sums[c] += left * left


@compiled
def _turn(direction: np.ndarray, residual: np.ndarray, turn: np.ndarray) -> None:
    """direction = residual + turn * direction."""
    rows, width = direction.shape
    for i in range(rows):
        for c in range(width):
            direction[i, c] = np.float32(residual[i, c] + turn[c] * np.float64(direction[i, c]))


@compiled
def _squares(residual: np.ndarray, sums: np.ndarray) -> None:
    rows, width = residual.shape
    for i in range(rows):
        for c in range(width):
            sums[c] += residual[i, c] * residual[i, c]
