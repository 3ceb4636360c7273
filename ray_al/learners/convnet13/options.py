"""The options of `Convnet13`, checked: one clear sentence for each mistake."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_al.learners.convnet13.learner import Convnet13

CHOICES = {
    "pretrain": ("none", "deepcluster"),
    "pseudo_sampling": ("with_replacement", "prob_half"),
    "loss_weight": ("none", "w"),
    "graph": ("union", "reciprocal"),
    "pretrain_schedule": ("constant", "cosine"),
    "precision": ("auto", "float32", "bfloat16"),
}
AT_LEAST_ONE = ("epochs", "batch", "labeled_batch", "k", "pretrain_epochs", "pretrain_batch", "width", "threads")


def check_options(options: Convnet13) -> None:
    """Raise ValueError for an option out of range; the message names its value and what it may be."""
    for name, known in CHOICES.items():
        if (value := getattr(options, name)) not in known:
            raise ValueError(f"convnet13: unknown {name} {value!r}; known: {', '.join(known)}")
    for name in AT_LEAST_ONE:
        if (count := getattr(options, name)) < 1:
            raise ValueError(f"convnet13: {name} is {count}; it must be 1 or more")
    for name in ("lr", "pretrain_lr"):
        if not 0 < (rate := getattr(options, name)) < math.inf:
            raise ValueError(f"convnet13: {name} is {rate}; it must be a positive number")
    if options.sup_epochs < 0:
        raise ValueError(f"convnet13: sup_epochs is {options.sup_epochs}; it must be 0 or more")
    if options.pretrain_seed < 0:
        raise ValueError(f"convnet13: pretrain_seed is {options.pretrain_seed}; it must be 0 or more")
    if not 0 <= options.alpha < 1:
        raise ValueError(f"convnet13: alpha is {options.alpha}; it must be at least 0 and below 1")
    if options.semi_batch <= options.labeled_batch:
        raise ValueError(
            f"convnet13: semi_batch is {options.semi_batch}; it must be more than labeled_batch "
            f"({options.labeled_batch}), for pseudo-labeled images to have a place in it"
        )
    longest = max(options.epochs, options.sup_epochs if options.semi else 0)
    if options.zero_at is not None and not longest <= options.zero_at < math.inf:
        raise ValueError(
            f"convnet13: zero_at is {options.zero_at}; it must be at least the {longest} epochs of a stage"
        )
    if options.pretrain_clusters is not None and options.pretrain_clusters < 2:
        raise ValueError(f"convnet13: pretrain_clusters is {options.pretrain_clusters}; it must be 2 or more")
    if options.device not in ("auto", "cpu") and not options.device.startswith("cuda"):
        raise ValueError(f"convnet13: unknown device {options.device!r}; known: auto, cpu, cuda, cuda:0, cuda:1...")
