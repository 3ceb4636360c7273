"""Typicality: how densely an item's own group lies around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import torch

from ray_al.kernels import blocks, distances
from ray_al.kernels.group_loops import STEP, finish, gather, squares_within, to_squares
from ray_al.kernels.halves import loadable
from ray_al.kernels.products import multiply, scratch
from ray_al.kernels.tiles import TILE
from ray_al.kernels.vectors import SINGLES

_ROWS, _COLUMNS = 1024, 4096


def typicality(x: np.ndarray, groups: Sequence[np.ndarray], neighbors: int) -> list[np.ndarray]:
    """Inverse mean Euclidean distance to the nearest min(neighbors, n - 1) others of the same group.

    TypiClust (Hacohen et al. 2022, https://arxiv.org/abs/2202.02794).

    Args:
        x: (N, d) float32, float16 or uint8.
        groups: id arrays; ids may repeat between groups.
        neighbors: at least 1.

    Returns:
        (n,) float32 for each group of n ids, in the order given. An item whose nearest neighbors are all duplicates of
        it is infinitely typical: it gets the largest float32. The one item of a group of 1 gets 0.

    Raises:
        ValueError: x is not finite in a group, an id does not exist, or neighbors < 1.
    """
    blocks.check_matrix(x)
    if neighbors < 1:
        raise ValueError(f"neighbors is {neighbors}, but it must be at least 1")
    groups = [blocks.check_ids(group, len(x), "groups") for group in groups]
    tasks = _tasks(groups, neighbors)
    found = blocks.run(lambda parts: _mean_distances(x, parts, neighbors), tasks)
    means = [np.full(len(group), np.inf) for group in groups]  # one item has no others
    for parts, part_means in zip(tasks, found, strict=True):
        for part, mean in zip(parts, part_means, strict=True):
            means[part.number][part.start : part.start + part.rows] = mean
    with np.errstate(divide="ignore"):
        return [np.minimum(1 / mean, np.finfo(np.float32).max).astype(np.float32) for mean in means]


class _Part(NamedTuple):
    """Up to _ROWS rows of a group, from `start` on."""

    number: int
    group: np.ndarray
    start: int

    @property
    def rows(self) -> int:
        return min(_ROWS, len(self.group) - self.start)


def _tasks(groups: list[np.ndarray], neighbors: int) -> list[list[_Part]]:
    """A part of a group that is long, or short groups of up to _ROWS rows together, all with as many neighbors: calls
    for each alone would hold the interpreter's lock for much of the time."""
    tasks: list[list[_Part]] = []
    room, before = 0, 0
    for number in np.argsort([len(group) for group in groups], kind="stable").tolist():
        group = groups[number]
        size, count = len(group), min(neighbors, len(group) - 1)
        if size > _ROWS:
            tasks += [[_Part(number, group, start)] for start in range(0, size, _ROWS)]
        elif count > 0:
            if size > room or count != before:
                tasks.append([])
                room, before = _ROWS, count
            tasks[-1].append(_Part(number, group, 0))
            room -= size
    return tasks


def _mean_distances(x: np.ndarray, parts: list[_Part], neighbors: int) -> list[np.ndarray]:
    """(n,) float64 for each part: of its rows, to their nearest neighbors."""
    count = min(neighbors, len(parts[0].group) - 1)
    long = len(parts[0].group) > _ROWS
    nearest, norms, shifts = _of_part(x, parts[0], count) if long else _of_groups(x, parts, count)
    squares, close = np.empty(nearest.shape), np.empty(len(nearest), np.bool_)
    if not finish(nearest, norms, squares, close):
        _complain(x, parts)
    ends = np.cumsum([part.rows for part in parts])
    for part, end, shift in zip(parts, ends, shifts, strict=True):
        rows = np.flatnonzero(close[end - part.rows : end])
        if len(rows):
            found = _nearest_in_double(x, part.group, part.start + rows, count, shift)
            squares[end - part.rows + rows] = found
    mean = np.add.reduce(np.sqrt(squares, out=squares), 1) / count
    return np.split(mean, ends[:-1])


def _complain(x: np.ndarray, parts: list[_Part]) -> NoReturn:
    for part in parts:
        for row in part.group:
            if not np.isfinite(x[row]).all():
                raise ValueError(f"x is {x[row][~np.isfinite(x[row])][0]} in row {row}")
    largest = max(np.abs(x[part.group]).max() for part in parts)
    raise ValueError(f"x is too large for squared distances: {largest}")


_Nearest = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n, count) float32 smallest squared distances of rows to others of their group, ascending, less the rows' squared
norms (n,) around the group's origin, (g, d) for each group. A point of the group as the origin keeps norms, and the
rounding of the products, as small as the group."""


def _of_groups(x: np.ndarray, parts: list[_Part], count: int) -> _Nearest:
    """Of whole groups."""
    sizes = np.array([part.rows for part in parts])
    ids = np.concatenate([part.group for part in parts])
    plain = loadable(x)
    if plain is None:
        raw = scratch("raw", len(ids), x.shape[1])
        plain, ids = blocks.float_rows(x[ids], 0, len(ids), out=raw).numpy(), np.arange(len(ids))
    filled = -(-sizes // TILE) * TILE
    rows = scratch("own", int(filled.sum()), -(-x.shape[1] // SINGLES) * SINGLES).numpy()
    shifts, norms = np.empty((len(parts), x.shape[1]), np.float32), np.empty(len(rows), np.float32)
    gather(plain, ids, sizes, shifts, rows, norms)
    table = scratch("squares", len(ids), int(sizes.max())).numpy()
    squares_within(rows, norms, sizes, table)
    table.partition(count - 1, axis=1)
    own = norms[np.arange(len(ids)) + np.repeat(np.cumsum(filled - sizes) - (filled - sizes), sizes)]
    return np.sort(table[:, :count], 1), own, shifts


def _of_part(x: np.ndarray, part: _Part, count: int) -> _Nearest:
    """Of a part of a group of any size."""
    group, start, rows = part.group, part.start, part.rows
    shift = distances.center(x, group)
    own, norms = _rows(x, group[start : start + rows], shift, "own")
    nearest = []
    for first in range(0, len(group), _COLUMNS):
        width = min(_COLUMNS, len(group) - first)
        others, squares = _rows(x, group[first : first + width], shift, "others")
        table = multiply(own, others, "products").numpy()[:rows]
        to_squares(table, squares, width, start - first, table)
        table.partition(min(count, width) - 1, axis=1)
        nearest.append(table[:, :count])
    return np.sort(np.concatenate(nearest, 1), 1)[:, :count], norms[:rows], shift[None]


def _rows(x: np.ndarray, ids: np.ndarray, shift: np.ndarray, room: str) -> tuple[torch.Tensor, np.ndarray]:
    """Rows `ids` less `shift`, and zeros up to a multiple of STEP rows: products have few shapes. Their squared norms.

    In this thread's scratch memory of the name `room`.
    """
    out = scratch(room, -(-len(ids) // STEP) * STEP, x.shape[1])
    out[len(ids) :] = 0
    blocks.float_rows(x[ids], 0, len(ids), shift, out[: len(ids)])
    return out, _norms(out)


def _norms(rows: torch.Tensor) -> np.ndarray:
    found: np.ndarray = torch.square(rows, out=scratch("squares", *rows.shape)).sum(1).numpy()
    return found


def _nearest_in_double(x: np.ndarray, group: np.ndarray, rows: np.ndarray, count: int, shift: np.ndarray) -> np.ndarray:
    """(n, count) smallest squared distances of the group's `rows` (n,) to its others, ascending."""
    own = blocks.double_rows(x[group[rows]], shift)
    norms = own.square().sum(1)
    nearest, index = torch.empty((len(rows), 0), dtype=own.dtype), torch.empty((len(rows), 0), dtype=torch.int64)
    for start in range(0, len(group), _COLUMNS):
        others = blocks.double_rows(x[group[start : start + _COLUMNS]], shift)
        table = torch.addmm(others.square().sum(1), own, others.T, alpha=-2)
        here = np.flatnonzero((rows >= start) & (rows < start + len(others)))
        table[here, rows[here] - start] = torch.inf  # not itself
        values, columns = table.topk(min(count, len(others)), 1, largest=False)
        nearest, index = torch.cat([nearest, values], 1), torch.cat([index, columns + start], 1)
    nearest, chosen = nearest.topk(count, 1, largest=False)
    nearest += norms[:, None]
    index = index.gather(1, chosen)
    # Products are noise for the very closest, and duplicates must be at 0.
    for row, column in np.argwhere((nearest < 1e-9 * norms[:, None]).numpy()):
        pair = x[group[[rows[row], int(index[row, column])]]].astype(np.float64)
        nearest[row, column] = float(np.square(pair[0] - pair[1]).sum())
    return nearest.clamp_(min=0).numpy()
