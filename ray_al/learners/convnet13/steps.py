"""Gradient steps on batches of moved images; on a GPU recorded once as a CUDA graph and replayed."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ray_al.learners.convnet13.images import Images, draw_moves
from ray_al.learners.convnet13.network import ConvNet13
from ray_al.learners.convnet13.optimizer import Sgd

_EAGER = 3  # steps before a graph is recorded: libraries choose and allocate in them


@dataclass(frozen=True)
class Batches:
    """What the steps of one epoch are made of."""

    rows: np.ndarray  # (steps, batch) int64, images
    targets: np.ndarray  # (steps, batch) int64
    weights: np.ndarray  # (steps, batch) float32, of the losses
    rates: np.ndarray  # (steps,) learning rates


class Stepper:
    """Steps of one batch size. A step's loss is the sum of weight * cross-entropy over the batch, over its size.

    `shifts` is the stream of the images' moves. All randomness on the device is the network's own `noise`.
    """

    def __init__(self, net: ConvNet13, optimizer: Sgd, images: Images, batch: int, shifts: np.random.Generator) -> None:
        self.net, self.optimizer, self.images, self.shifts = net, optimizer, images, shifts
        device = images.pixels.device
        self._plan = torch.zeros((5, batch), dtype=torch.int64, device=device)  # row, target, moves
        self._weights = torch.ones(batch, device=device)
        self._lr = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)  # sum of the epoch so far
        self._on_gpu = device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager = _EAGER if self._on_gpu else math.inf  # steps left before a graph is recorded

    def epoch(self, batches: Batches, where: str) -> float:
        """Train on the batches and give the mean loss.

        Raises:
            FloatingPointError: it is not finite; the message says `where`.
        """
        steps, batch = batches.rows.shape
        moves = draw_moves(steps * batch, self.shifts).reshape(3, steps, batch)
        plan = np.concatenate([batches.rows[None], batches.targets[None], moves]).transpose(1, 0, 2)
        device = self._plan.device
        plans = torch.from_numpy(np.ascontiguousarray(plan)).to(device)  # (steps, 5, batch)
        weights = torch.from_numpy(np.ascontiguousarray(batches.weights, np.float32)).to(device)
        rates = torch.from_numpy(batches.rates.astype(np.float32)).to(device)
        self.net.train()
        self._loss.zero_()
        with torch.cuda.device(device) if self._on_gpu else nullcontext():  # streams and graphs are the current one's
            for step in range(steps):
                self._plan.copy_(plans[step])
                self._weights.copy_(weights[step])
                self._lr.copy_(rates[step])
                self._advance()
        loss = float(self._loss.item()) / steps  # one look per epoch: asking a GPU for the loss stops its queue
        if not math.isfinite(loss):
            raise FloatingPointError(f"convnet13: the loss is {loss} in {where}")
        return loss

    def _advance(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif self._eager > 0:
            self._eager -= 1
            if self._on_gpu:
                self._aside()
            else:
                self._step()
        else:
            self._record()

    def _aside(self) -> None:
        """A step on a stream of its own, as torch asks for before a recording."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream().wait_stream(side)

    def _record(self) -> None:
        """Record a step, which does not make it, and make it. Where recording fails, steps stay as they were."""
        graph = torch.cuda.CUDAGraph()
        try:
            if self.net.noise is not None:
                graph.register_generator_state(self.net.noise)
            with torch.cuda.graph(graph):
                self._step()
        except (RuntimeError, AttributeError) as error:
            warnings.warn(f"convnet13: steps cannot be recorded as a CUDA graph and run slower: {error}", stacklevel=2)
            torch.cuda.synchronize()
            self._eager = math.inf
            self._aside()
            return
        self._graph = graph
        graph.replay()

    def _step(self) -> None:
        rows, targets, moves = self._plan[0], self._plan[1], self._plan[2:]
        losses = functional.cross_entropy(self.net(self.images.moved(rows, moves)), targets, reduction="none")
        loss = (losses * self._weights).mean()
        self.optimizer.gradient.zero_()
        loss.backward()
        self.optimizer.step(self._lr)
        self._loss.add_(loss.detach())
