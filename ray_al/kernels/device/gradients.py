"""Distances between BADGE's gradient embeddings of resident rows under a linear head, factorized."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ray_al.kernels.device.coverage import TOUCHING, parts_of, point_groups, settle, touching_pairs
from ray_al.kernels.device.rows import DeviceRows, wide_product
from ray_al.kernels.device.scores import Linear

_NOISE = 1e-5  # relative error that products with float32 sums may have


class DeviceGradients:
    """Rows q outer h (C x d), q = p - onehot(argmax p): the last layer's gradient for the predicted class.

    <q_i h_i, q_j h_j> = (q_i q_j)(h_i h_j). The q are kept when they fit in `keep` bytes, else made again chunk by
    chunk, from products of the same shapes, so with the same bits.

    Raises:
        ValueError: rows too large for squared distances.
    """

    def __init__(self, rows: DeviceRows, linear: Linear, keep: int) -> None:
        self.rows, self.count, self.width, self.device = rows, rows.count, rows.width, rows.device
        self._linear = linear
        self._kept: list[torch.Tensor] | None = None
        kept, norms = [], []
        fits = 4 * rows.count * len(linear.bias) <= keep
        for start, block in rows.chunks():
            q = self._q(start)
            norms.append(q.square().sum(1) * block.float().square().sum(1))
            if fits:
                kept.append(q)
        self._kept = kept if fits else None
        self.norms = torch.cat(norms)  # (N,) float32
        if not bool(torch.isfinite(self.norms.sum(dtype=torch.float64))):
            raise ValueError(f"embedding is too large: {rows.largest}")

    def _q(self, start: int) -> torch.Tensor:
        """(n, C) float32 of the chunk from `start`."""
        if self._kept is not None:
            return self._kept[start // self.rows.chunk]
        probs = torch.softmax(self._linear.logits(self.rows.x[start : start + self.rows.chunk]), 0).T.contiguous()
        return probs.scatter_add_(1, probs.argmax(1, keepdim=True), torch.full_like(probs[:, :1], -1))

    def picked(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q (m, C) and h (m, d) of rows `ids`, float64."""
        q = torch.empty((len(ids), len(self._linear.bias)), dtype=torch.float64, device=self.device)
        home = ids // self.rows.chunk
        for chunk in torch.unique(home).tolist():
            here = torch.nonzero(home == chunk)[:, 0]
            q[here] = self._q(chunk * self.rows.chunk)[ids[here] - chunk * self.rows.chunk].double()
        return q, self.rows.doubles(ids)

    def _points(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-2 q (p, C) in float32, the rows (p, d) as they are, and the squared norms (p, 1)."""
        q, _ = self.picked(ids)
        return q.float() * -2, self.rows.x[ids], self.norms[ids][:, None]

    def cover(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        points = [[self._points(group) for group in point_groups(ids)] for _, ids in states]
        rough = torch.full((len(states), self.count), torch.inf, device=self.device)
        for start, block in self.rows.chunks():
            q = self._q(start)
            for groups, row in zip(points, rough, strict=True):
                part = row[start : start + len(block)]
                for minus_twice, h, point_norms in groups:
                    table = wide_product(h, block).mul_(torch.mm(minus_twice, q.T)).add_(point_norms)
                    torch.minimum(part, table.amin(0), out=part)
        for (best, ids), row in zip(states, rough, strict=True):
            settle(best, row.add_(self.norms), self.norms, _NOISE, partial(self._nearest, ids))

    def _nearest(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(n,) float64 squared distance of rows to the nearest of rows `ids`."""
        point_q, point_h = self.picked(ids)
        point_norms = point_q.square().sum(1) * point_h.square().sum(1)
        out = []
        for part in parts_of(rows, self.width + len(self._linear.bias) + len(ids)):
            q, h = self.picked(part)
            norms = q.square().sum(1) * h.square().sum(1)
            found, index = (point_norms - 2 * (q @ point_q.T) * (h @ point_h.T)).min(1)
            found += norms
            exact = _outer_distance(q, h, point_q[index], point_h[index])
            out.append(torch.where(found < TOUCHING * norms, exact, found))
        return torch.cat(out)

    def pairs(self, ids: torch.Tensor) -> torch.Tensor:
        q, h = self.picked(ids)
        norms = q.square().sum(1) * h.square().sum(1)
        table = (q @ q.T).mul_(h @ h.T).mul_(-2).add_(norms).add_(norms[:, None])
        one, other = touching_pairs(table, norms)
        width = self.width + len(self._linear.bias)
        for a, b in zip(parts_of(one, width), parts_of(other, width), strict=True):
            table[a, b] = _outer_distance(q[a], h[a], q[b], h[b])
        return table


def _outer_distance(q: torch.Tensor, h: torch.Tensor, other_q: torch.Tensor, other_h: torch.Tensor) -> torch.Tensor:
    """|q h - q' h'|^2 from the differences: q h - q' h' = q (h - h') + (q - q') h'; 0 for equal rows."""
    dq, dh = q - other_q, h - other_h
    both = (q * dq).sum(-1) * (dh * other_h).sum(-1)
    total = q.square().sum(-1) * dh.square().sum(-1) + dq.square().sum(-1) * other_h.square().sum(-1) + 2 * both
    return total.clamp_(min=0)
