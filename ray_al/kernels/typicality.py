"""Typicality: how densely an item's own group lies around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ray_al.kernels import blocks, distances
from ray_al.kernels.compiled import compiled
from ray_al.kernels.products import multiply, scratch

_ROWS, _COLUMNS = 1024, 4096
_STEP = 64
_CLOSE = 1e-3  # squared distances below this part of |a|^2 are worked again in float64


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
    if _plain(x):
        x = blocks.borrow(x).numpy()  # compiled loops are made for arrays that may be written
    tasks = [(group, start) for group in groups for start in range(0, len(group), _ROWS)]
    parts = blocks.run(lambda task: _mean_distances(x, task[0], task[1], neighbors), tasks)
    with np.errstate(divide="ignore"):
        values = 1 / np.concatenate([np.empty(0), *parts])
    values = np.minimum(values, np.finfo(np.float32).max).astype(np.float32)
    return np.split(values, np.cumsum([len(group) for group in groups])[:-1]) if groups else []


def _mean_distances(x: np.ndarray, group: np.ndarray, start: int, neighbors: int) -> np.ndarray:
    """(n,) float64, of rows start..start + _ROWS of one group; infinite where there are no others."""
    stop = min(start + _ROWS, len(group))
    count = min(neighbors, len(group) - 1)
    if count == 0:
        return np.full(stop - start, np.inf)
    # Rows that need more than the compiled loop are read once from where they lie far apart.
    far = len(group) <= _ROWS and not _plain(x)
    rows, ids = (x[group], np.arange(len(group))) if far else (x, group)
    # A point of the group as the origin keeps norms, and the rounding of the products, as small as the group.
    shift = distances.center(rows, ids)
    nearest, norms = _nearest(rows, ids, start, stop, count, shift)
    squares, close = np.empty((stop - start, count)), np.empty(stop - start, np.int64)
    found = finish(nearest, norms, squares, close)
    if found < 0:
        for row in group:
            if not np.isfinite(x[row]).all():
                raise ValueError(f"x is {x[row][~np.isfinite(x[row])][0]} in row {row}")
        raise ValueError(f"x is too large for squared distances: {np.abs(x[group]).max()}")
    if found:
        close = close[:found]
        squares[close] = _nearest_in_double(rows, ids, start + close, count, shift)
    mean: np.ndarray = np.add.reduce(np.sqrt(squares, out=squares), 1) / count
    return mean


def _nearest(
    x: np.ndarray, group: np.ndarray, start: int, stop: int, count: int, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) float32 smallest squared distances of rows start..stop of the group to its others, ascending, less
    the rows' squared norms (n,)."""
    own, norms = _rows(x, group[start:stop], shift, "own")
    whole, parts = len(group) <= _ROWS, []
    for first in range(0, len(group), _COLUMNS):
        width = min(_COLUMNS, len(group) - first)
        others, squares = (own, norms) if whole else _rows(x, group[first : first + width], shift, "others")
        table = multiply(own, others, "typicality").numpy()[: stop - start]
        to_squares(table, squares, width, start - first)
        table.partition(min(count, width) - 1, axis=1)
        parts.append(np.sort(table[:, :count], 1))
    nearest = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts, 1), 1)[:, :count]
    return nearest, norms[: stop - start]


def _rows(x: np.ndarray, ids: np.ndarray, shift: np.ndarray, room: str) -> tuple[torch.Tensor, np.ndarray]:
    """Rows `ids` less `shift`, and zeros up to a multiple of _STEP rows: products have few shapes. Their squared norms.

    In this thread's scratch memory of the name `room`.
    """
    out = scratch(room, -(-len(ids) // _STEP) * _STEP, x.shape[1])
    if _plain(x):
        gather(x, ids, shift, out.numpy())
    else:
        out[len(ids) :] = 0
        blocks.float_rows(x[ids], 0, len(ids), shift, out[: len(ids)])
    norms: np.ndarray = torch.square(out, out=scratch("squares", *out.shape)).sum(1).numpy()
    return out, norms


def _plain(x: np.ndarray) -> bool:
    """Whether rows are as compiled loops read them."""
    return x.dtype == np.float32 and x.flags.c_contiguous


@compiled
def gather(x: np.ndarray, ids: np.ndarray, shift: np.ndarray, out: np.ndarray) -> None:
    """out (m, d) = rows `ids` (n,) of x less shift (d,), and zeros after them."""
    for i in range(len(ids)):
        row, own = x[ids[i]], out[i]
        for k in range(len(shift)):
            own[k] = row[k] - shift[k]
    out[len(ids) :] = 0


@compiled
def to_squares(table: np.ndarray, norms: np.ndarray, width: int, own: int) -> None:
    """Products of rows (n, m) become their squared distances less the squared norms of the first, in place.

    Infinite from column `width` on, and where a row meets itself: in the first at column `own`, if it is one.
    """
    for i in range(len(table)):
        row = table[i]
        for j in range(width):
            row[j] = np.float32(-2.0) * row[j] + norms[j]
        row[width:] = np.inf
        if 0 <= own + i < width:
            row[own + i] = np.inf


@compiled
def finish(nearest: np.ndarray, norms: np.ndarray, squares: np.ndarray, close: np.ndarray) -> int:
    """squares (n, count) float64 = nearest + norms (n,), at least 0.

    Returns the number of rows whose nearest is so close that the products' rounding shows; they come first in close
    (n,). -1 where something is not finite.
    """
    found, total = 0, 0.0
    for i in range(len(squares)):
        for k in range(squares.shape[1]):
            square = np.float64(nearest[i, k]) + np.float64(norms[i])
            total += np.float64(0.0) * square  # 0 * NaN and 0 * inf are NaN
            squares[i, k] = max(square, 0.0)
        close[found] = i
        found += squares[i, 0] < _CLOSE * np.float64(norms[i])
    return found if total == 0 else -1


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
