"""Images that stay on the device, and what is done to them there: border, standardization, shifts and flips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ray_al.learners.convnet13.network import SIDE

SHIFT = 4  # pixels at most, both ways
_ROWS = 4096


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of every channel over all pixels of a pool, (channels,) float32."""

    mean: np.ndarray
    deviation: np.ndarray


def moments_of(images: np.ndarray) -> Moments:
    """Those of (N, H, W[, channels]) uint8 images: sums of integers, so that no order of summing changes them."""
    channels = images.shape[3] if images.ndim == 4 else 1
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), _ROWS):
        pixels = np.asarray(images[start : start + _ROWS]).reshape(-1, channels)
        for channel in range(channels):
            counts = np.bincount(pixels[:, channel], minlength=256)
            total[channel] += counts @ np.arange(256)
            squares[channel] += counts @ np.arange(256) ** 2
    count = len(images) * images.shape[1] * images.shape[2]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return Moments(mean.astype(np.float32), np.maximum(deviation, 1e-3).astype(np.float32))


class Images:
    """(N, 32, 32, channels) uint8 on a device; gives batches (n, 3, 32, 32) float32, channels last in memory.

    Smaller images get a black border (digits of 28 pixels a side: 2 pixels all around), gray ones three equal channels.

    Raises:
        ValueError: not uint8 images of 1 or 3 channels and at most 32 pixels a side.
    """

    def __init__(self, images: np.ndarray, moments: Moments, device: torch.device) -> None:
        check_images(images)
        whole = torch.from_numpy(np.array(images if images.ndim == 4 else images[..., None]))  # may be read-only
        free = [SIDE - side for side in whole.shape[1:3]]
        border = [free[1] // 2, free[1] - free[1] // 2, free[0] // 2, free[0] - free[0] // 2]
        self.pixels = functional.pad(whole, [0, 0, *border]).to(device)
        self._mean, self._deviation = (torch.from_numpy(part).to(device) for part in vars(moments).values())
        self._places = torch.arange(SIDE, device=device)

    def __len__(self) -> int:
        return len(self.pixels)

    def plain(self, rows: torch.Tensor | slice) -> torch.Tensor:
        return self._standard(self.pixels[rows])

    def moved(self, rows: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        """Images `rows` (n,), changed by `moves` (3, n): pixels down and to the right, and 1 for a mirror image.

        What enters at an edge is the image reflected there, the edge itself not repeated. The mirror comes last.
        """
        down, across, mirrored = moves[:, :, None]  # (n, 1) each
        columns = torch.where(mirrored > 0, SIDE - 1 - self._places, self._places)  # (n, 32)
        places = [_reflected(self._places - down), _reflected(columns - across)]
        return self._standard(self.pixels[rows[:, None, None], places[0][:, :, None], places[1][:, None, :]])

    def _standard(self, pixels: torch.Tensor) -> torch.Tensor:
        values = (pixels.float() - self._mean) / self._deviation
        return values.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def check_images(images: np.ndarray) -> None:
    """Raise ValueError unless these are uint8 (N, H, W[, 1 or 3]), at most 32 pixels a side."""
    shape = images.shape[1:]
    fits = images.ndim in (3, 4) and max(shape[:2]) <= SIDE and (images.ndim == 3 or shape[2] in (1, 3))
    if not fits or images.dtype != np.uint8:
        raise ValueError(
            f"convnet13 needs uint8 images (H, W[, 1 or 3]) of at most {SIDE} pixels a side, got {shape} {images.dtype}"
        )


def draw_moves(count: int, rng: np.random.Generator) -> np.ndarray:
    """(3, count) int64: shifts down and to the right, uniform in -4..4, and mirrored or not."""
    return np.concatenate([rng.integers(-SHIFT, SHIFT + 1, (2, count)), rng.integers(0, 2, (1, count))])


def _reflected(places: torch.Tensor) -> torch.Tensor:
    """Places outside 0..31 come back from the edge as often as it takes for shifts below 32."""
    return (SIDE - 1) - ((SIDE - 1) - places.abs()).abs()
