"""Squared Euclidean distances from every resident row to a few picked rows, right for close points too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ray_al.kernels.device.coverage import TOUCHING, parts_of, point_groups, settle, touching_pairs
from ray_al.kernels.device.rows import DeviceRows, wide_product

_NOISE = 1e-5  # relative error that products with float32 sums may have


class DeviceEuclidean:
    """Rows of a resident matrix, Euclidean.

    A product gives |a|^2 + |p|^2 - 2ap with an error of about 1e-6 |a|^2: fine for most pairs, noise for close ones.
    Rows for which that may decide are found by the result itself and worked again in float64.

    Raises:
        ValueError: rows too large for squared distances.
    """

    def __init__(self, rows: DeviceRows) -> None:
        self.rows, self.count, self.width, self.device = rows, rows.count, rows.width, rows.device
        self.frame = rows.frame

    def _points(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-2 times the rows (p, d) in the frame, exactly, and their squared norms (p, 1)."""
        return self.rows.framed(self.rows.x[ids]) * -2, self.frame.norms[ids][:, None]

    def cover(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        norms = self.frame.norms
        points = [[self._points(group) for group in point_groups(ids)] for _, ids in states]
        rough = torch.full((len(states), self.count), torch.inf, device=self.device)
        for start, block in self.rows.chunks():
            framed = self.rows.framed(block)
            for groups, row in zip(points, rough, strict=True):
                part = row[start : start + len(block)]
                for minus_twice, point_norms in groups:
                    nearest = wide_product(minus_twice, framed).add_(point_norms).amin(0)
                    torch.minimum(part, nearest, out=part)
        for (best, ids), row in zip(states, rough, strict=True):
            settle(best, row.add_(norms), norms, _NOISE, partial(self._nearest, ids))

    def _nearest(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(n,) float64 squared distance of rows to the nearest of rows `ids`."""
        out = []
        for part in parts_of(rows, max(self.width, min(len(ids), 4096))):
            own = self.rows.doubles(part)
            norms = own.square().sum(1)
            nearest = torch.full_like(norms, torch.inf)
            for group in ids.split(4096):
                points = self.rows.doubles(group)
                table = torch.addmm(points.square().sum(1), own, points.T, alpha=-2)
                found, index = table.min(1)
                found += norms
                # A product is noise for touching rows: these from the difference.
                exact = (own - points[index]).square_().sum(1)
                nearest = torch.minimum(nearest, torch.where(found < TOUCHING * norms, exact, found))
            out.append(nearest)
        return torch.cat(out)

    def pairs(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.rows.doubles(ids)
        norms = rows.square().sum(1)
        table = torch.addmm(norms, rows, rows.T, alpha=-2).add_(norms[:, None])
        one, other = touching_pairs(table, norms)
        for a, b in zip(parts_of(one, self.width), parts_of(other, self.width), strict=True):
            table[a, b] = (rows[a] - rows[b]).square_().sum(1)
        return table
