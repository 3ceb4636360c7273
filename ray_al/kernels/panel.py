"""Conjugate gradients for (I - alpha W) z = y, many columns side by side: an edge of the graph is read once for all.

Nothing in a column's arithmetic depends on the columns beside it: each has its own steps, sums in one fixed order over
fixed row blocks, and an end of its own. So a column's bits are the same in whatever company it is solved, and for any
number of threads. Directions are float32 and all else is float64, each step being made of the rounded direction: the
residual that is carried along stays the true one, and does reach 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ray_al.kernels import blocks
from ray_al.kernels.affinity import Affinity
from ray_al.kernels.compiled import compiled

ROWS = 1024  # per block: part of the result's definition, since it fixes the order of the sums
MOST = 1000  # iterations after which a solve has failed: a few hundred are enough at alpha 0.99
_CACHE = 1 << 24  # bytes of a panel of directions that stay near the processor

Take = Callable[[int, np.ndarray, np.ndarray], None]


def width_of(count: int) -> int:
    """Columns to solve side by side on a graph of `count` nodes."""
    return 32 if count * 4 * 32 <= _CACHE else 64


@dataclass
class _Panel:
    """The columns under way: all arrays are (N, c), or (c,)."""

    members: np.ndarray  # (c,) places in what was given
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


def solve_columns(
    weights: Affinity, y: np.ndarray, alpha: np.ndarray, tol: np.ndarray, limit: np.ndarray, take: Take
) -> None:
    """Solve for the columns of y (N, c) float64, from zero; each is handed to take(column, z (N,), residual (N,)).

    A column ends when its residual's norm is `tol` (c,) times that of y, or after `limit` (c,) iterations.

    Raises:
        ValueError: a column without a limit does not get there.
    """
    squares = _total(_map(lambda a, b, sums: _squares(y[a:b], sums), *y.shape))
    panel = _Panel(
        np.arange(y.shape[1]),
        alpha,
        np.zeros(y.shape),
        y.copy(),
        y.astype(np.float32),
        squares,
        tol**2 * squares,
        limit,
    )
    product = np.empty(y.shape)  # (N, c) float64, (I - alpha W) times the directions
    iteration = 0
    while True:
        active = (panel.squares > panel.enough) & (iteration < panel.limit)
        if 2 * active.sum() <= len(active):  # the ended columns leave, and the panel becomes narrower
            for c in np.flatnonzero(~active):
                take(int(panel.members[c]), panel.z[:, c], panel.residual[:, c])
            if not active.any():
                return
            panel = panel.keep(active)
            product, active = np.empty(panel.z.shape), active[active]
        if iteration >= MOST and np.isinf(panel.limit[active]).any():
            worst = np.sqrt((panel.squares / panel.enough)[active].max())
            raise ValueError(f"conjugate gradients are {worst:.1e} times the tolerance away after {MOST} iterations")
        _step(weights, panel, product, active)
        iteration += 1


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
    blocks.map_blocks(lambda a, b: _turn(direction[a:b], residual[a:b], turn), count, ROWS)
    panel.squares = np.where(active, squares, panel.squares)


def _map(work: Callable[[int, int, np.ndarray], None], count: int, width: int) -> list[np.ndarray]:
    """The sums (width,) that work(start, stop, sums) makes of every row block, in order."""

    def block(start: int, stop: int) -> np.ndarray:
        sums = np.zeros(width)
        work(start, stop, sums)
        return sums

    return blocks.map_blocks(block, count, ROWS)


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
        e, end = starts[i], starts[i + 1]
        while e + 4 <= end:  # four edges to a visit of `out`, in their order
            a, b = np.float64(values[e]), np.float64(values[e + 1])
            x, y = np.float64(values[e + 2]), np.float64(values[e + 3])
            p, q = direction[columns[e]], direction[columns[e + 1]]
            r, s = direction[columns[e + 2]], direction[columns[e + 3]]
            for c in range(width):
                total = (out[c] + a * np.float64(p[c])) + b * np.float64(q[c])
                out[c] = (total + x * np.float64(r[c])) + y * np.float64(s[c])
            e += 4
        while e < end:
            a, p = np.float64(values[e]), direction[columns[e]]
            for c in range(width):
                out[c] += a * np.float64(p[c])
            e += 1
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
