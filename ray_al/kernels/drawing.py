"""k-means++ by rejection, over anything that knows how far its items are from their nearest picks."""

from __future__ import annotations

from typing import Protocol

import numpy as np

PROPOSALS = 256
SINCE = 256  # picks after a pass, and then another
FEW = 16  # one accepted proposal of so many is too few: distances are no longer what they were at the pass


class Distances(Protocol):
    """A coverage as `ray_al.kernels.coverage.Coverage`, or what of it is needed here."""

    def cover(self, ids: np.ndarray) -> None: ...

    def totals(self) -> np.ndarray: ...

    def locate(self, block: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def rest(self) -> np.ndarray: ...

    def pairs(self, ids: np.ndarray) -> np.ndarray: ...


def draw(
    coverage: Distances, k: int, start: np.ndarray, rng: np.random.Generator, since: int = SINCE
) -> tuple[np.ndarray, np.ndarray]:
    """Draw k items by k-means++, the first uniformly from `start`: ids (k,) and squared distances (k,).

    The distribution is exact, by rejection: proposals are drawn from the distances of the last full pass and accepted
    with probability true / proposed distance. A true distance needs only the picks since that pass, and these are
    proposals, too: tables of some hundred rows. There is a pass when few are accepted, or after `since` picks, which
    enter it as one matrix product.
    """
    ids = np.empty(k, np.int64)
    squares = np.full(k, np.inf)
    if k == 0:
        return ids, squares
    ids[0] = rng.choice(start)
    done, passed = 1, 0
    while done < k:
        coverage.cover(ids[passed:done])
        passed, accepted = done, PROPOSALS
        totals = np.cumsum(coverage.totals())
        if totals[-1] == 0:
            ids[done:], squares[done:] = rng.choice(coverage.rest(), k - done, replace=False), 0
            break
        while done < k and done - passed < since and FEW * accepted >= PROPOSALS:
            proposals, proposed = _propose(coverage, totals, rng)
            table = coverage.pairs(np.concatenate([proposals, ids[passed:done]]))
            found, distances = _accept(table, proposed, proposals, k - done, rng)
            accepted = len(found)
            ids[done : done + accepted], squares[done : done + accepted] = found, distances
            done += accepted
    return ids, squares


def _propose(coverage: Distances, totals: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ids drawn with replacement in proportion to squared distance, and these: first a block, then a row of it."""
    block = np.searchsorted(totals, rng.random(PROPOSALS) * totals[-1], side="right")
    # Rounding may carry u * total up to the total itself: the last block of positive weight.
    block = np.minimum(block, np.searchsorted(totals, totals[-1], side="left"))
    return coverage.locate(block, rng.random(PROPOSALS))


def _accept(
    table: np.ndarray, proposed: np.ndarray, ids: np.ndarray, k: int, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Go through the proposals in order, up to k accepted ones; the first after a pass is always one.

    table (m, m): squared distances between the proposals, and then the picks since the pass.
    """
    left = np.minimum(proposed, table[: len(ids), len(ids) :].min(1, initial=np.inf))
    bars = rng.random(len(ids)) * proposed
    accepted: list[int] = []
    distances: list[float] = []
    for row in range(len(ids)):
        if bars[row] < left[row] and len(accepted) < k:
            accepted.append(int(ids[row]))
            distances.append(float(left[row]))
            left = np.minimum(left, table[row, : len(ids)])
            left[ids == ids[row]] = 0
    return accepted, distances
