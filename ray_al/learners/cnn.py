"""A small convolutional network trained from scratch on the images of the labeled set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.core.seeds import subseed

if TYPE_CHECKING:
    import torch

    from ray_al.learners.networks import SmallCnn


@dataclass(frozen=True)
class Cnn:
    """Six convolutions on the space `space`, uint8 (N, H, W[, channels]), 8 pixels a side or more; see `SmallCnn`.

    Weights start afresh at every fit. Weights, order and shifts draw from the generator handed to `fit` alone, so equal
    generators give equal models, bit for bit on a CPU, whatever the number of threads torch is set to.

    Raises:
        ValueError: a parameter out of range; at `fit`, no labels, or images of another shape.
        FloatingPointError: at `fit`, a loss that is not finite.
    """

    epochs: int = 40  # passes over the labeled set; at least 200 steps are made
    batch: int = 64
    lr: float = 5e-3
    weight_decay: float = 1e-2
    width: int = 16  # channels of the first two convolutions; the embedding has 4 * width
    augment: bool = True  # random shifts; nothing is mirrored, since digits would not survive it
    device: str = "auto"  # "cpu", "cuda", "cuda:1"...; auto is a GPU if there is one
    threads: int = 1  # CPU threads; another number gives other last bits
    space: str = "images"

    heads: ClassVar[frozenset[str]] = frozenset({"probs", "embedding"})

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "width", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"cnn: {name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 < self.lr < np.inf:
            raise ValueError(f"cnn: lr is {self.lr}; it must be a positive number")
        if not 0 <= self.weight_decay < np.inf:
            raise ValueError(f"cnn: weight_decay is {self.weight_decay}; it must be 0 or more")
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise ValueError(f"cnn: unknown device {self.device!r}; known: auto, cpu, cuda, cuda:0, cuda:1...")

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model:
        from ray_al.learners import networks

        images = pool.inputs(self.space, np.concatenate([labeled.ids, assume.ids]))
        if images.ndim not in (3, 4) or min(images.shape[1:3]) < 8:
            shape = images.shape[1:]
            raise ValueError(f"cnn needs images (H, W[, channels]), 8 or more a side; space {self.space!r} has {shape}")
        if labeled.images is not None and len(labeled.image_labels):
            if labeled.images.shape[1:] != images.shape[1:]:
                raise ValueError(
                    f"synthetic images have shape {labeled.images.shape[1:]}, the pool's {images.shape[1:]}"
                )
            images = np.concatenate([images, labeled.images])
        targets = np.concatenate([labeled.labels, assume.labels, labeled.image_labels])
        if not len(targets):
            raise ValueError("cnn cannot be fitted without labels")
        init, order, shifts = (np.random.default_rng(subseed(rng)) for _ in range(3))
        device = networks.pick_device(self.device)
        training = networks.Training(self.epochs, self.batch, self.lr, self.weight_decay, self.augment)
        with networks.repeatable(self.threads):
            net = networks.make_cnn(images, pool.classes, self.width, init)
            networks.train(net, images, targets, training, order, shifts, device)
        return CnnModel(net, pool, self.space, device, self.threads)

    def save(self, model: CnnModel) -> bytes:
        """A model's weights, safetensors."""
        from ray_al.learners import networks

        return networks.cnn_bytes(model.net)

    def load(self, saved: bytes, pool: Pool) -> CnnModel:
        """The model that `save` was given, for this learner's device. Raises ValueError for anything else."""
        from ray_al.learners import networks

        device = networks.pick_device(self.device)
        return CnnModel(networks.cnn_of(saved).to(device), pool, self.space, device, self.threads)


@dataclass(frozen=True, eq=False)
class CnnModel:
    """Heads of a trained network: "probs" (n, C) and "embedding" (n, 4 * width), its last features; float32."""

    net: SmallCnn
    pool: Pool
    space: str
    device: torch.device
    threads: int
    whole: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # both heads of the splits asked for

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        if head not in Cnn.heads:
            raise ValueError(f"cnn has no head {head!r}; known: {', '.join(sorted(Cnn.heads))}")
        position = 0 if head == "probs" else 1
        if ids is None and split not in self.whole:
            self.whole[split] = self._apply(None, split)
        if split in self.whole:
            values = self.whole[split][position]
            return values if ids is None else values[ids]
        return self._apply(ids, split)[position]

    def _apply(self, ids: np.ndarray | None, split: str) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.learners import networks

        with networks.repeatable(self.threads):
            return networks.apply(self.net, self.pool.inputs(self.space, ids, split), self.device)
