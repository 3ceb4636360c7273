"""The two stages of training: SUP on the labels, SEMI on labels and propagated pseudo-labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ray_al.learners.convnet13.features import features
from ray_al.learners.convnet13.images import Images
from ray_al.learners.convnet13.network import ConvNet13
from ray_al.learners.convnet13.optimizer import Sgd, cosine
from ray_al.learners.convnet13.propagation import Propagation, Pseudo, propagate
from ray_al.learners.convnet13.sampling import passes, two_streams
from ray_al.learners.convnet13.steps import Batches, Stepper

History = list[dict[str, Any]]
Audit = Callable[[np.ndarray, np.ndarray], float]  # pool ids, labels -> the share that is right; for the record alone


@dataclass(frozen=True)
class Schedule:
    """Stage length and learning rates."""

    epochs: int
    lr: float
    zero_at: float | None  # epochs at which the cosine is 0; None: 1.05 times the stage's


@dataclass(frozen=True)
class Semi:
    """The options of the semi-supervised stage; see `Convnet13`."""

    batch: int
    labeled_batch: int
    sampling: str
    weighted: bool
    clean_features: bool
    propagation: Propagation


@dataclass
class Fit:
    """A network under training, its images on the device, the random streams it draws from, and what it reports."""

    net: ConvNet13
    images: Images
    rows: np.ndarray  # (n,) places of the labeled images among `images`
    targets: np.ndarray  # (n,)
    order: np.random.Generator
    shifts: np.random.Generator
    history: History = field(default_factory=list)


def supervised(fit: Fit, schedule: Schedule, batch: int) -> None:
    """Passes over the labeled images alone; fewer of them than a batch make one batch."""
    batch = min(batch, len(fit.rows))
    steps = len(fit.rows) // batch
    stepper = Stepper(fit.net, Sgd(fit.net, fit.net.head), fit.images, batch, fit.shifts)
    rates = cosine(schedule.lr, schedule.epochs, steps, schedule.zero_at)
    for epoch in range(schedule.epochs):
        started = time.perf_counter()
        order = passes(len(fit.rows), batch, fit.order)
        batches = Batches(fit.rows[order], fit.targets[order], np.ones(order.shape, np.float32), rates[epoch])
        loss = stepper.epoch(batches, f"supervised epoch {epoch + 1}")
        fit.history.append(_row("sup", epoch, rates[epoch], loss, started))


def semi_supervised(
    fit: Fit,
    schedule: Schedule,
    semi: Semi,
    pool: int,
    classes: int,
    audit: Audit | None = None,
) -> None:
    """Epochs on both streams; before each, pseudo-labels of the `pool` images, which are the first of `fit.images`."""
    inside = fit.rows < pool  # labeled synthetic images lie behind the pool and take no part in the graph
    ids, labels = fit.rows[inside], fit.targets[inside]
    free = np.setdiff1d(np.arange(pool), ids)
    stepper = Stepper(fit.net, Sgd(fit.net, fit.net.head), fit.images, semi.batch, fit.shifts)
    for epoch in range(schedule.epochs):
        started = time.perf_counter()
        found = features(fit.net, fit.images, None if semi.clean_features else fit.shifts)[:pool]
        _finish(found)
        seen = time.perf_counter()
        pseudo = propagate(found, ids, labels, classes, semi.propagation)
        batches = _batches(fit, semi, pseudo, free, schedule, epoch)
        loss = stepper.epoch(batches, f"SEMI epoch {epoch + 1}")
        row = _row("semi", epoch, batches.rates, loss, started)
        right = audit(free, pseudo.labels[free]) if audit else None
        seconds = {"feature_seconds": seen - started, "graph_seconds": pseudo.graph_seconds}
        fit.history.append({**row, **seconds, **_report(pseudo, free), "pseudo_accuracy": right})


def _batches(fit: Fit, semi: Semi, pseudo: Pseudo, free: np.ndarray, schedule: Schedule, epoch: int) -> Batches:
    """The epoch's batches: labeled images first in each."""
    weights = pseudo.weights[free]
    known, drawn = two_streams(len(fit.rows), weights, semi.batch, semi.labeled_batch, semi.sampling, fit.order)
    rows = np.hstack([fit.rows[known], free[drawn]])
    targets = np.hstack([fit.targets[known], pseudo.labels[free[drawn]]])
    own = weights[drawn] if semi.weighted else np.ones(drawn.shape, np.float32)
    rates = cosine(schedule.lr, schedule.epochs, len(rows), schedule.zero_at)[epoch]
    return Batches(rows, targets, np.hstack([np.ones(known.shape, np.float32), own]), rates)


def _report(pseudo: Pseudo, free: np.ndarray) -> dict[str, Any]:
    weights = pseudo.weights[free]
    return {
        "weights_mean": float(weights.mean()),
        "weights_zero": int((weights == 0).sum()),
        "solve_seconds": pseudo.solve_seconds,
    }


def _row(stage: str, epoch: int, rates: np.ndarray, loss: float, started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {
        "stage": stage,
        "epoch": epoch,
        "steps": len(rates),
        "lr": float(rates[0]),
        "loss": loss,
        "seconds": seconds,
    }


def _finish(values: torch.Tensor) -> None:
    if values.is_cuda:
        torch.cuda.synchronize(values.device)  # so that seconds are those of the work, not of its ordering
