"""The learner of "Rethinking deep active learning" (Simeoni et al., arXiv 1911.08177): base, PRE, SEMI, PRE+SEMI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ray_al.core.interfaces import Model
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.preparation import Preparation
from ray_al.core.query import PseudoLabels
from ray_al.learners.convnet13.options import check_options

if TYPE_CHECKING:
    from ray_al.learners.convnet13.model import ConvNet13Model


@dataclass(frozen=True)
class Convnet13:
    """The 13-layer network, trained anew in every round; on labels alone, or on propagated pseudo-labels as well.

    `pretrain: deepcluster` (PRE) starts from weights that were trained on the pool without labels, once for all rounds
    and trajectories. `semi: true` (SEMI) adds, after `sup_epochs` on the labels alone, `epochs` epochs of batches of
    `labeled_batch` labeled images and the rest pseudo-labeled; pseudo-labels are propagated anew before each of them.
    Without it, `epochs` passes over the labels are all there is, and `assume` may bring pseudo-labels.

    SGD with Nesterov momentum 0.9, weight decay 2e-4, and a learning rate that falls from `lr` along a cosine, which
    would reach 0 after `zero_at` epochs. Images are moved by up to 4 pixels and mirrored. All random choices derive
    from the generator handed to `fit`: on a CPU equal generators give equal models, bit for bit.

    Raises:
        ValueError: an option out of range; at `fit`, no labels, images that do not fit, or assumed labels with `semi`.
        FloatingPointError: at `fit`, a loss that is not finite.
    """

    pretrain: str = "none"  # or "deepcluster"
    semi: bool = False
    epochs: int = 200
    sup_epochs: int = 200  # of SUP, before SEMI; 0: the first graph is of untrained features
    batch: int = 32  # of labeled images, without SEMI and in SUP
    semi_batch: int = 128
    labeled_batch: int = 50  # of a SEMI batch
    lr: float = 0.2
    zero_at: float | None = None  # None: 1.05 times the stage's epochs, the paper's 210 of 200
    pseudo_sampling: str = "with_replacement"  # by weight, as the paper; or "prob_half", as its code
    loss_weight: str = "none"  # "w": pseudo-labeled images count by their weight, as in the paper's code
    graph: str = "union"  # or "reciprocal"
    k: int = 50  # neighbors
    alpha: float = 0.99
    class_balanced: bool = True  # every class sends out labels of the same total, however many it has
    clean_features: bool = True  # the graph is of unchanged images; False: of moved ones, as in the paper's code
    pretrain_epochs: int = 250
    pretrain_lr: float = 0.02
    pretrain_schedule: str = "constant"  # or "cosine"
    pretrain_batch: int = 128
    pretrain_clusters: int | None = None  # None: five times the classes
    pretrain_seed: int = 0
    width: int = 128  # channels of the first layers and length of the embedding; less for quick runs
    precision: str = "auto"  # of convolutions: "float32", "bfloat16"; auto: bfloat16 on a GPU that has it
    device: str = "auto"  # "cpu", "cuda", "cuda:1"...; auto is a GPU if there is one
    threads: int = 1  # CPU threads; another number gives other last bits
    space: str = "images"
    audit: Callable[[np.ndarray, np.ndarray], float] | None = None  # tells how many labels are right, for the record
    last: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # of the last fit

    heads: ClassVar[frozenset[str]] = frozenset({"probs", "embedding"})
    starts_afresh: ClassVar[bool] = True  # a fit depends on nothing but its arguments: a lost state costs time alone

    def __post_init__(self) -> None:
        check_options(self)

    def preparation(self, classes: int) -> Preparation | None:
        """The weights that must be on storage before the first fit, and how to make them."""
        if self.pretrain == "none":
            return None
        config = {
            "version": 2,
            "clusters": self.pretrain_clusters or 5 * classes,
            "width": self.width,
            "epochs": self.pretrain_epochs,
            "lr": self.pretrain_lr,
            "schedule": self.pretrain_schedule,
            "batch": self.pretrain_batch,
            "seed": self.pretrain_seed,
            "precision": self.precision,
            "threads": self.threads,
        }
        return Preparation("deepcluster", config, self.space, self._pretrained)

    def _pretrained(self, images: np.ndarray, config: dict[str, Any]) -> dict[str, np.ndarray]:
        from ray_al.learners.convnet13 import run

        return {"weights": run.pretrain(images, config, self.device)}

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Model:
        from ray_al.learners.convnet13 import run

        prepared = self.preparation(pool.classes)
        body = pool.reader.read(prepared.name, "weights") if prepared else None
        model, history = run.fit(self, labeled, assume, pool, rng, body)
        self.last.update(model=model, history=history)
        return model

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per epoch of the last fit of this process: stage, loss, seconds, and of SEMI weights and graph."""
        rows: list[dict[str, Any]] = self.last.get("history", [])
        return rows

    def save(self, model: ConvNet13Model) -> bytes:
        """A model's weights, safetensors."""
        from ray_al.learners.convnet13 import run

        return run.save(model)

    def load(self, saved: bytes, pool: Pool) -> ConvNet13Model:
        """The model that `save` was given, for this learner's device. Raises ValueError for anything else."""
        from ray_al.learners.convnet13 import run

        model = run.load(self, saved, pool)
        self.last.update(model=model, history=[])
        return model

    def state(self) -> bytes:
        return self.save(self.last["model"])

    def restore(self, state: bytes, pool: Pool) -> Model:
        return self.load(state, pool)
