"""Some of the pool's items as rows of a smaller matrix, for calls that read these alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Excerpt:
    """Pool ids and their rows: row i is item `kept[i]`, or item i when nothing is left out."""

    kept: np.ndarray | None  # (m,) int64, ascending; None: the whole pool

    @classmethod
    def of(cls, among: np.ndarray | None, count: int | None = None) -> Excerpt:
        """The items `among` of `count`.

        Raises:
            ValueError: the ids are not ascending, or one does not exist.
        """
        if among is not None:
            if np.ndim(among) != 1 or (np.diff(among) <= 0).any():
                raise ValueError("among is a vector of distinct ids in ascending order")
            if len(among) and (among[0] < 0 or (count is not None and among[-1] >= count)):
                wrong = among[0] if among[0] < 0 else among[-1]
                raise ValueError(f"among holds id {wrong}, which is no item of the pool")
        return cls(among)

    @classmethod
    def around(cls, among: np.ndarray | None, centers: np.ndarray, exclude: np.ndarray) -> tuple[Excerpt, np.ndarray]:
        """The items `among` together with `centers`, and all ids of these that may not be picked."""
        if among is None:
            return cls(None), exclude
        cls.of(among)
        both = np.union1d(among, centers)
        return cls(both), np.union1d(np.setdiff1d(both, among), exclude)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Rows of the ids that are here, in their order."""
        if self.kept is None:
            return ids
        at = np.searchsorted(self.kept, ids)
        inside = at < len(self.kept)
        inside[inside] = self.kept[at[inside]] == ids[inside]
        return at[inside]

    def ids(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.kept is None else self.kept[rows]
