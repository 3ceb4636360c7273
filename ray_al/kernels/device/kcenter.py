"""Greedy k-center on a device, for several trajectories in lock step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.device.coverage import DeviceCoverage, Geometry, Leaders, cover
from ray_al.kernels.device.rows import taken_ids

CANDIDATES = (1024, 4096)  # of a pass: at first, and at most
_STEPS = 32  # picks between two looks whether any trajectory still picks
_TABLES = 1 << 29  # numbers (4 GB) of all trajectories' tables of pairs


class KCenterRequest(NamedTuple):
    """k picks by one trajectory; see `ray_al.kernels.kcenter.kcenter_greedy`."""

    k: int
    centers: np.ndarray
    exclude: np.ndarray
    seed: int


class _Selection:
    """One trajectory's picks so far."""

    def __init__(self, geometry: Geometry, request: KCenterRequest) -> None:
        self.k = request.k
        taken = taken_ids(geometry.count, request.k, ("centers", request.centers), ("exclude", request.exclude))
        self.centers = torch.from_numpy(blocks.check_ids(request.centers, geometry.count, "centers")).to(
            geometry.device
        )
        self.coverage = DeviceCoverage(geometry, taken, request.seed)
        self.ids: list[torch.Tensor] = []
        self.squares: list[torch.Tensor] = []
        self.done = 0
        self.candidates = CANDIDATES[0]

    def take(self, ids: torch.Tensor, squares: torch.Tensor) -> None:
        self.ids.append(ids)
        self.squares.append(squares)
        self.done += len(ids)
        if 2 * len(ids) > self.candidates:  # depends on nothing but this selection
            self.candidates = min(2 * self.candidates, CANDIDATES[1])

    def answer(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.k:
            return np.empty(0, np.int64), np.empty(0)
        return torch.cat(self.ids).cpu().numpy(), torch.cat(self.squares).sqrt().cpu().numpy()


def kcenter_greedy(geometry: Geometry, requests: Sequence[KCenterRequest]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids (k,) in order of picking and distances (k,) of every request, as if it were alone.

    A pass brings the farthest candidates of each trajectory; picks are made among them while the best is at least as
    far as the first row beyond them was at the pass, because distances only shrink. The next pass accounts for all.
    """
    selections = [_Selection(geometry, request) for request in requests]
    cover([s.coverage for s in selections if s.k], [s.centers for s in selections if s.k])
    while True:
        open_ = [s for s in selections if s.done < s.k]
        if not open_:
            return [s.answer() for s in selections]
        # Tables of pairs are the largest thing here: as many trajectories at a time as there is room for.
        at_once = max(1, _TABLES // max(s.candidates for s in open_) ** 2)
        for first in range(0, len(open_), at_once):
            group = open_[first : first + at_once]
            found = _pick(geometry, group)
            for selection, (ids, squares) in zip(group, found, strict=True):
                selection.take(ids, squares)
            more = [i for i, s in enumerate(group) if s.done < s.k]
            cover([group[i].coverage for i in more], [found[i][0] for i in more])


def _pick(geometry: Geometry, group: Sequence[_Selection]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each selection's next picks among its candidates: ids and squared distances."""
    leaders = [s.coverage.leaders(s.candidates + 1) for s in group]
    size = max(min(len(found.ids), s.candidates) for found, s in zip(leaders, group, strict=True))
    state = _Race(len(group), size, geometry.device)
    for turn, (found, selection) in enumerate(zip(leaders, group, strict=True)):
        state.enter(turn, geometry, found, selection.candidates, selection.k - selection.done)
    return state.run()


class _Race:
    """Greedy picking of several trajectories, each among its own candidates, without a look at the device per pick."""

    def __init__(self, count: int, size: int, device: torch.device) -> None:
        self.ids = torch.zeros((count, size), dtype=torch.int64, device=device)
        self.priority = torch.zeros_like(self.ids)
        self.best = torch.full((count, size), -1.0, dtype=torch.float64, device=device)
        self.table = torch.zeros((count, size, size), dtype=torch.float64, device=device)
        # What stands for all rows that are no candidates: (-1, largest) when there are none.
        self.bar = torch.full((count,), -1.0, dtype=torch.float64, device=device)
        self.bar_priority = torch.full((count,), torch.iinfo(torch.int64).max, device=device)
        self.left = np.zeros(count, np.int64)

    def enter(self, turn: int, geometry: Geometry, found: Leaders, candidates: int, left: int) -> None:
        # By priority: the first of equally far candidates is then the one to take.
        order = torch.argsort(found.priority[:candidates], descending=True)
        size = len(order)
        self.ids[turn, :size] = found.ids[order]
        self.priority[turn, :size] = found.priority[order]
        self.best[turn, :size] = found.squares[order]
        self.table[turn, :size, :size] = geometry.pairs(found.ids[order])
        if len(found.ids) > candidates:
            self.bar[turn], self.bar_priority[turn] = found.squares[candidates], found.priority[candidates]
        self.left[turn] = min(left, size)

    def run(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Every turn's picks in order: ids and squared distances."""
        count, size = self.best.shape
        best, rows = self.best.view(-1), self.table.view(-1, size)
        offset = size * torch.arange(count, device=best.device)
        places, squares = [], []
        for step in range(int(self.left.max())):
            place = self.best.argmax(1).add_(offset)  # the first of the largest
            far = best.index_select(0, place)
            torch.minimum(self.best, rows.index_select(0, place), out=self.best)
            best.index_fill_(0, place, -1.0)
            places.append(place)
            squares.append(far)
            if step % _STEPS == _STEPS - 1 and not bool(self._ahead(place, far).any()):
                break
        # Distance and priority fall from pick to pick, so those ahead of the bar are a turn's first ones.
        where, far = torch.stack(places), torch.stack(squares)  # (steps, count)
        numbers = np.minimum(self._ahead(where, far).sum(0).cpu().numpy(), self.left)
        ids = self.ids.view(-1)[where]
        return [(ids[:number, turn], far[:number, turn]) for turn, number in enumerate(numbers.tolist())]

    def _ahead(self, place: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
        """Whether picks (..., count) come before all rows that are no candidates."""
        return (far > self.bar) | ((far == self.bar) & (self.priority.view(-1)[place] > self.bar_priority))
