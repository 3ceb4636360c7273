"""A network applied to many images: features and class probabilities."""

from __future__ import annotations

import numpy as np
import torch

from ray_al.learners.convnet13.images import Images, draw_moves
from ray_al.learners.convnet13.network import ConvNet13

_ROWS = 512  # of a pass; every pass has as many, so that a row's last bits do not depend on its neighbors


def features(net: ConvNet13, images: Images, moves: np.random.Generator | None = None) -> torch.Tensor:
    """(N, width) float32 features of all images, of moved ones with a stream `moves`; on the device."""
    net.eval()
    out = torch.empty((len(images), net.head.direction.shape[1]), device=images.pixels.device)
    with torch.inference_mode():
        for start in range(0, len(images), _ROWS):
            rows = torch.arange(start, start + _ROWS, device=out.device).clamp_(max=len(images) - 1)
            if moves is None:
                part = images.plain(rows)
            else:
                part = images.moved(rows, torch.from_numpy(draw_moves(_ROWS, moves)).to(out.device))
            out[start : start + _ROWS] = net.embed(part)[: len(images) - start]
    return out.clone()  # an ordinary tensor: those of inference mode take part in nothing else


def apply(net: ConvNet13, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) class probabilities and (n, width) features of images, float32, read-only."""
    embedding = features(net, images)
    with torch.inference_mode():
        parts = [_padded_head(net, embedding[start : start + _ROWS]) for start in range(0, len(embedding), _ROWS)]
        chances = torch.cat(parts) if parts else torch.empty((0, len(net.head.bias)))
    out = chances.cpu().numpy(), embedding.cpu().numpy()
    for values in out:
        values.flags.writeable = False  # models keep and share them
    return out


def _padded_head(net: ConvNet13, rows: torch.Tensor) -> torch.Tensor:
    padded = rows.new_zeros((_ROWS, rows.shape[1]))
    padded[: len(rows)] = rows
    return net.head(padded).softmax(1)[: len(rows)]
