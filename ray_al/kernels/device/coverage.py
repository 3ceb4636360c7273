"""How far every resident row is from its nearest pick: what greedy k-center and k-means++ share on a device.

The same steps as `ray_al.kernels.coverage`, so that equal distances give equal picks: blocks of the same size, equal
priorities among equally far rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.device.rows import kth_largest

CLOSE = 1 / 32  # of a row's squared norm; above it float32 leaves four correct digits or more
TOUCHING = 1e-9  # below it, float64 products are noise in turn
POINTS = 256  # picked rows of one product
_PAIR_ELEMENTS = 1 << 26  # numbers of float64 worked at once


class Geometry(Protocol):
    """Resident rows among which points are picked by their distances."""

    count: int
    width: int
    device: torch.device

    def cover(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """For each state (best (N,) float64, ids (p,)), lower best in place to the squared distances to rows `ids`.

        What one state becomes does not depend on the others.
        """
        ...

    def pairs(self, ids: torch.Tensor) -> torch.Tensor:
        """(m, m) float64 squared distances between rows `ids`; 0 on the diagonal, never negative."""
        ...


class Leaders(NamedTuple):
    """Rows that lie farthest, farthest first."""

    ids: torch.Tensor  # (m,) int64
    squares: torch.Tensor  # (m,) float64 squared distance to the nearest pick
    priority: torch.Tensor  # (m,) int64, distinct: the larger goes first among equally far ones


class DeviceCoverage:
    """Of one selection under way; `free` rows are all but `taken`."""

    def __init__(self, geometry: Geometry, taken: np.ndarray, seed: int) -> None:
        self.geometry = geometry
        self._salt = int(np.random.default_rng(seed).integers(0, 2**63))
        self._block = min(blocks.block_rows(geometry.width), geometry.count)
        room = -(-geometry.count // self._block) * self._block
        self._padded = torch.full((room,), -1.0, dtype=torch.float64, device=geometry.device)
        self.best = self._padded[: geometry.count]  # squared distance to the nearest pick; -1: not to be picked
        self.best.fill_(torch.inf)
        self.best[torch.from_numpy(taken).to(geometry.device)] = -1

    def cover(self, ids: torch.Tensor) -> None:
        """Take account of these picks; they cannot be picked again."""
        cover([self], [ids])

    def leaders(self, count: int) -> Leaders:
        """The `count` free rows of largest (squared distance, priority), all when there are fewer."""
        best = self.best
        bar = kth_largest(best, count) if count < len(best) else best.new_tensor(0.0)
        ids = torch.nonzero(best >= bar.clamp(min=0))[:, 0]
        squares, priority = best[ids], priorities(ids, self._salt)
        order = torch.argsort(priority, descending=True, stable=True)
        order = order[torch.argsort(squares[order], descending=True, stable=True)][:count]
        return Leaders(ids[order], squares[order], priority[order])

    def totals(self) -> np.ndarray:
        """(blocks,) float64 sums of the squared distances of free rows."""
        return self._padded.view(-1, self._block).clamp(min=0).sum(1).cpu().numpy()

    def locate(self, block: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (m,) and squared distances at which the running sums of blocks (m,) pass part (m,), 0 <= part < 1."""
        home = torch.from_numpy(block).to(self.best.device)
        parts = torch.from_numpy(part).to(self.best.device)[:, None]
        sums = self._padded.view(-1, self._block)[home].clamp_(min=0).cumsum(1)
        last = sums[:, -1:].contiguous()
        found = torch.searchsorted(sums, parts * last, right=True)
        # Rounding may carry the product up to the sum itself: the last row of positive weight.
        rows = home * self._block + torch.minimum(found, torch.searchsorted(sums, last))[:, 0]
        return rows.cpu().numpy(), self._padded[rows].cpu().numpy()

    def rest(self) -> np.ndarray:
        """Ids that may be picked, ascending."""
        return torch.nonzero(self.best >= 0)[:, 0].cpu().numpy()


def cover(coverages: Sequence[DeviceCoverage], ids: Sequence[torch.Tensor]) -> None:
    """Every coverage takes account of its picks, all in one pass over the rows of their common geometry."""
    for coverage, picks in zip(coverages, ids, strict=True):
        coverage.best[picks] = -1
    states = [(coverage.best, picks) for coverage, picks in zip(coverages, ids, strict=True) if len(picks)]
    if states:
        coverages[0].geometry.cover(states)


def priorities(ids: torch.Tensor, salt: int) -> torch.Tensor:
    """Distinct pseudo-random int64 of each id: splitmix64, a bijection, in int64 arithmetic that wraps."""

    def signed(value: int) -> int:
        value &= 2**64 - 1
        return value - 2**64 if value >= 2**63 else value

    def shifted(z: torch.Tensor, by: int) -> torch.Tensor:
        return (z >> by) & ((1 << (64 - by)) - 1)  # without the sign's bits

    z = ids + signed(2 * salt + 1)
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shifted(z, 31)


def point_groups(ids: torch.Tensor) -> list[torch.Tensor]:
    """Ids in groups for products of few shapes: POINTS at once, the rest filled up to a power of two by its first id.

    Shapes depend on the ids' number alone, so bits do not depend on what else a pass serves.
    """
    groups = list(ids.split(POINTS))
    last = groups[-1]
    room = max(8, 1 << (len(last) - 1).bit_length())
    groups[-1] = torch.cat([last, last[:1].expand(room - len(last))])
    return groups


def settle(
    best: torch.Tensor,
    rough: torch.Tensor,
    norms: torch.Tensor,
    noise: float,
    exact: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Lower best (N,) float64 by rough (N,) float32, or where that is noise by exact(rows) (n,) float64.

    `noise` is the error that rough may have, relative to norms (N,).
    """
    fine = rough.clamp_(min=0).double()
    unsure = (rough < CLOSE * norms) & (fine - noise * norms < best)  # never where best is -1 or 0
    unsure &= best > 0
    rows = torch.nonzero(unsure)[:, 0]
    if len(rows):
        fine[rows] = exact(rows)
    torch.minimum(best, fine, out=best)


def parts_of(rows: torch.Tensor, width: int) -> Sequence[torch.Tensor]:
    """Rows in parts whose float64 matrices of `width` columns stay within 512 MB."""
    return rows.split(max(256, _PAIR_ELEMENTS // max(width, 1)))


def touching_pairs(table: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the entries of table (m, m) that are too small for a product; its diagonal becomes 0."""
    table.fill_diagonal_(0)
    touching = (table < TOUCHING * scale).fill_diagonal_(False)
    rows, columns = torch.nonzero(touching, as_tuple=True)
    return rows, columns
