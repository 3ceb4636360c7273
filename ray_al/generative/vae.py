"""What a variational auto-encoder is told and what it tells: without torch, so that sweeps can be checked lightly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KL_MODES = ("book", "elbo")
VERSION = 1  # part of every trained space's identity: raise it when the same settings give other results


@dataclass(frozen=True)
class VaeSettings:
    """The training of Pourkamali-Anaraki & Wakin (2019), with the weights of the book listing it rests on.

    `kl_mode` "book" adds 5e-4 times the mean over latent dimensions of mu^2 + sigma^2 - 1 - log sigma^2 to the mean
    cross-entropy per pixel; "elbo" is the negative evidence lower bound, divided by the number of pixels. The book's
    penalty is weaker (0.26 of the bound's for 3 dimensions and 28 x 28 pixels): codes spread out more.
    """

    dims: int  # d, size of the code
    kl_mode: str = "book"
    seed: int = 0
    epochs: int = 10
    batch: int = 16
    device: str = "auto"  # "cpu", "cuda", "cuda:1"...; auto is a GPU if there is one

    def kl_weight(self, pixels: int) -> float:
        """What KL(q(z|x) || N(0, I)) in nats per image is multiplied with, beside the cross-entropy per pixel."""
        return 1e-3 / self.dims if self.kl_mode == "book" else 1 / pixels


@dataclass(frozen=True)
class Epoch:
    """Means over the images of one pass: `loss` is what is minimized."""

    number: int  # from 1
    loss: float
    reconstruction: float  # cross-entropy, nats per pixel
    kl: float  # nats per image
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainedVae:
    """A trained auto-encoder: weights, and the codes of the images it was trained on and of others."""

    weights: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]  # "pool" (N, d) and "test" (M, d) float32: means of q(z|x)
    history: tuple[Epoch, ...]
    device: str  # what it was trained on

    @property
    def variances(self) -> np.ndarray:
        """(d,) variance of each dimension over the pool; below `UNUSED` it says nothing."""
        found: np.ndarray = self.means["pool"].var(0, dtype=np.float64)
        return found


UNUSED = 0.01  # variance below which a dimension of the code is taken for collapsed


def device_fault(device: Any) -> str | None:
    """What is wrong with the name of a device, or None."""
    good = isinstance(device, str) and (device in ("auto", "cpu", "cuda") or device.removeprefix("cuda:").isdigit())
    return None if good else "must be auto, cpu, cuda, cuda:0, cuda:1..."
