"""Typicality: how densely an item's own group lies around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ray_al.kernels import blocks, distances
from ray_al.kernels.products import multiply

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
    tasks = [(group, start) for group in groups for start in range(0, len(group), _ROWS)]
    parts = iter(blocks.run(lambda task: _typicality(x, task[0], task[1], neighbors), tasks))
    out = []
    for group in groups:
        pieces = [next(parts) for _ in range(0, len(group), _ROWS)]
        out.append(np.concatenate(pieces) if pieces else np.empty(0, np.float32))
    return out


def _typicality(x: np.ndarray, group: np.ndarray, start: int, neighbors: int) -> np.ndarray:
    """Of rows start..start + _ROWS of one group."""
    stop = min(start + _ROWS, len(group))
    count = min(neighbors, len(group) - 1)
    if count == 0:
        return np.zeros(stop - start, np.float32)
    # Read once from where they lie far apart.
    rows, ids = (x[group], np.arange(len(group))) if len(group) <= _ROWS else (x, group)
    # A point of the group as the origin keeps norms, and the rounding of the products, as small as the group.
    shift = distances.center(rows, ids)
    squares, norms = _nearest(rows, ids, start, stop, count, shift)
    if not np.isfinite(squares).all():
        for row in group:
            if not np.isfinite(x[row]).all():
                raise ValueError(f"x is {x[row][~np.isfinite(x[row])][0]} in row {row}")
        raise ValueError(f"x is too large for squared distances: {np.abs(x[group]).max()}")
    close = np.flatnonzero(squares[:, 0] < _CLOSE * norms)
    if len(close):
        squares[close] = _nearest_in_double(rows, ids, start + close, count, shift)
    mean = np.sqrt(squares).mean(1)  # (n,)
    with np.errstate(divide="ignore"):
        return np.minimum(1 / mean, np.finfo(np.float32).max).astype(np.float32)


def _nearest(
    x: np.ndarray, group: np.ndarray, start: int, stop: int, count: int, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) float64 smallest squared distances of rows start..stop of the group to its others, ascending, and (n,)
    squared norms."""
    whole = len(group) <= _ROWS
    own = _rows(x, group[start:stop], shift)
    parts = []
    for first in range(0, len(group), _COLUMNS):
        others = own if whole else _rows(x, group[first : first + _COLUMNS], shift)
        width = min(_COLUMNS, len(group) - first)
        norms = others.square().sum(1)
        norms[width:] = torch.inf
        table = multiply(own, others)[: stop - start].mul_(-2).add_(norms).numpy()
        here = np.arange(max(start, first), min(stop, first + width))
        table[here - start, here - first] = np.inf  # not itself
        table.partition(min(count, width) - 1, axis=1)
        parts.append(table[:, :count])
    nearest = np.sort(np.concatenate(parts, 1), 1)[:, :count]
    squares = own[: stop - start].square().sum(1).double().numpy()
    return np.maximum(nearest + squares[:, None], 0), squares


def _rows(x: np.ndarray, ids: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """Rows `ids` less `shift`, and zeros up to a multiple of _STEP rows: products have few shapes."""
    out = torch.zeros((-(-len(ids) // _STEP) * _STEP, x.shape[1]))
    blocks.float_rows(x[ids], 0, len(ids), shift, out[: len(ids)])
    return out


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
