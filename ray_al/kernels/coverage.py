"""Picking by distance to the nearest pick: what greedy k-center and k-means++ share, whole or in shards.

A pick changes only distances, and these only shrink. So the picks of a batch are made among few candidates, with the
distances between these alone, and a pass over all rows takes account of many picks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from ray_al.kernels.compiled import compiled
from ray_al.kernels.geometry import Geometry

Bar = tuple[float, int]  # squared distance and priority of an item: those of larger ones come before it


class Leaders(NamedTuple):
    """Items that lie farthest, farthest first."""

    ids: np.ndarray  # (m,) int64
    squares: np.ndarray  # (m,) float64 squared distance to the nearest pick
    priority: np.ndarray  # (m,) int64, distinct: the larger goes first among equally far ones

    def first(self, count: int) -> Leaders:
        order = np.lexsort((self.priority, self.squares))[::-1][:count]
        return Leaders(self.ids[order], self.squares[order], self.priority[order])

    def upto(self, count: int) -> Leaders:
        return Leaders(self.ids[:count], self.squares[:count], self.priority[:count])

    def bar(self, place: int) -> Bar:
        """Of the item at a place; before none, if there are not so many."""
        return (float(self.squares[place]), int(self.priority[place])) if place < len(self.ids) else (-1.0, 0)


class Coverage(Protocol):
    """How far every item is from its nearest pick, for one selection under way."""

    def cover(self, ids: np.ndarray) -> None:
        """Take account of these picks; they cannot be picked again."""
        ...

    def leaders(self, count: int) -> Leaders: ...

    def totals(self) -> np.ndarray:
        """(blocks,) float64 sums of the squared distances of items that may be picked."""
        ...

    def locate(self, block: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (m,) and squared distances at which the running sums of blocks (m,) pass part (m,), 0 <= part < 1."""
        ...

    def rest(self) -> np.ndarray:
        """Ids that may be picked, ascending."""
        ...

    def longest(self) -> tuple[float, np.ndarray]:
        """The largest squared norm of an item that may be picked, and the ids that have it; -1 when there is none."""
        ...

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        """(m, m) float64 squared distances between items `ids`."""
        ...

    def close(self, whole: bool) -> None:
        """There will be no more picks. Not `whole`: a call failed, and may even be at work still."""
        ...


class RowCoverage:
    """Of the rows that a geometry owns, of which `free` (N,) bool may be picked.

    Args:
        best: (stop - start,) squared distances to the items `covered`; it is changed. By default there are none.
        keep: called at the end with all covered ids, in order, and the distances to them.
        priority: (stop - start,) of the rows among equally far ones; by default it follows from ids and `seed`.
    """

    def __init__(
        self,
        geometry: Geometry,
        free: np.ndarray,
        seed: int,
        best: np.ndarray | None = None,
        covered: np.ndarray | None = None,
        keep: Callable[[np.ndarray, np.ndarray], None] | None = None,
        priority: np.ndarray | None = None,
    ) -> None:
        self._geometry, self._seed, self._rows = geometry, seed, geometry.rows
        self._open = free[geometry.start : geometry.stop].copy()
        self._best = np.full(len(self._open), np.inf) if best is None else best
        self._covered = [] if covered is None else [covered]
        self._keep, self._priority = keep, priority

    def cover(self, ids: np.ndarray) -> None:
        here = ids[(ids >= self._geometry.start) & (ids < self._geometry.stop)]
        self._open[here - self._geometry.start] = False
        self._geometry.cover(self._best, ids)
        self._covered.append(ids)

    def close(self, whole: bool) -> None:
        if whole and self._keep and self._covered:
            self._keep(np.concatenate(self._covered), self._best)

    def leaders(self, count: int) -> Leaders:
        bar = -1.0
        if 0 < count < len(self._best):
            values = np.where(self._open, self._best, -1.0)
            values.partition(len(values) - count)
            bar = values[-count]
        rows = np.flatnonzero((self._best >= bar) & self._open)
        ids = rows + self._geometry.start
        priority = _priority(ids, self._seed) if self._priority is None else self._priority[rows]
        return Leaders(ids, self._best[rows], priority).first(count)

    def totals(self) -> np.ndarray:
        values = np.where(self._open, self._best, 0.0)
        return np.add.reduceat(values, np.arange(0, len(values), self._rows)) if len(values) else values

    def locate(self, block: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.empty(len(block), np.int64)
        _locate(self._open, self._best, block * self._rows, self._rows, part, np.argsort(block), rows)
        return rows + self._geometry.start, self._best[rows]

    def rest(self) -> np.ndarray:
        return np.flatnonzero(self._open) + self._geometry.start

    def longest(self) -> tuple[float, np.ndarray]:
        norms = np.where(self._open, self._geometry.norms, -1)
        largest = float(norms.max(initial=-1))
        return largest, np.flatnonzero(self._open & (norms == largest)) + self._geometry.start

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        return self._geometry.pairs(ids)


@compiled
def _locate(
    free: np.ndarray, best: np.ndarray, starts: np.ndarray, count: int, part: np.ndarray, order: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """out (m,): where running sums of the free rows' best, over `count` rows from each of starts (m,), pass part (m,)
    of the whole sum. `order` (m,) sorts the starts."""
    running, last, stop = np.empty(count), -1, 0
    for i in order:
        start = starts[i]
        if start != last:
            last, stop, total = start, min(count, len(best) - start), 0.0
            for j in range(stop):
                total += best[start + j] if free[start + j] else 0.0
                running[j] = total
        whole, at = running[stop - 1], 0
        bar = part[i] * whole
        # Rounding may carry the product up to the sum itself: the last row of positive weight.
        while at < stop - 1 and not (running[at] > bar or running[at] == whole):
            at += 1
        out[i] = start + at


def _priority(ids: np.ndarray, seed: int) -> np.ndarray:
    """Distinct pseudo-random int64 of each id: any part of the ids gets the same ones (splitmix64, a bijection)."""
    with np.errstate(over="ignore"):
        z = (
            ids.astype(np.uint64)
            + np.uint64(np.random.default_rng(seed).integers(0, 2**63)) * np.uint64(2)
            + np.uint64(1)
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))).view(np.int64)


class ShardedCoverage:
    """Coverages that each own some of the blocks, asked at the same time and joined in their order.

    `near` is the place of the part in this process, which can tell the distances between any items.
    """

    def __init__(self, parts: Sequence[Coverage], near: int, threads: ThreadPoolExecutor) -> None:
        self._parts, self._near, self._threads = parts, near, threads
        self._ends = np.zeros(len(parts), np.int64)  # of each part's blocks

    def _all(self, work: Callable[[Coverage], Any]) -> list[Any]:
        return list(self._threads.map(work, self._parts))

    def cover(self, ids: np.ndarray) -> None:
        self._all(lambda part: part.cover(ids))

    def leaders(self, count: int) -> Leaders:
        found = self._all(lambda part: part.leaders(count))
        return Leaders(*(np.concatenate(column) for column in zip(*found, strict=True))).first(count)

    def totals(self) -> np.ndarray:
        found = self._all(lambda part: part.totals())
        self._ends = np.cumsum([len(totals) for totals in found])
        return np.concatenate(found)

    def locate(self, block: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, squares = np.empty(len(block), np.int64), np.empty(len(block))
        home = np.searchsorted(self._ends, block, side="right")
        for own in np.unique(home):
            here = home == own
            before = self._ends[own - 1] if own else 0
            ids[here], squares[here] = self._parts[own].locate(block[here] - before, part[here])
        return ids, squares

    def rest(self) -> np.ndarray:
        return np.concatenate(self._all(lambda part: part.rest()))

    def longest(self) -> tuple[float, np.ndarray]:
        found = self._all(lambda part: part.longest())
        largest = max(norm for norm, _ in found)
        return largest, np.concatenate([ids for norm, ids in found if norm == largest])

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        return self._parts[self._near].pairs(ids)

    def close(self, whole: bool) -> None:
        self._all(lambda part: part.close(whole))
