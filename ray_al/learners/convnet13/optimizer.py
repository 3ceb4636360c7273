"""SGD with Nesterov's momentum over all parameters as one vector, and its learning rates."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

HORIZON = 210 / 200  # the cosine reaches 0 at this multiple of the epochs


def cosine(lr: float, epochs: int, steps: int, zero_at: float | None = None) -> np.ndarray:
    """(epochs, steps) learning rates lr (1 + cos(pi t / zero_at)) / 2, t in epochs, counted step by step.

    `zero_at` None is 1.05 times `epochs`, the paper's 210 of 200 epochs.
    """
    time = np.arange(epochs * steps).reshape(epochs, steps) / max(steps, 1)
    return lr * (1 + np.cos(math.pi * time / (zero_at or HORIZON * epochs))) / 2


class Sgd:
    """SGD as torch's with nesterov=True, on a device. The parameters become views of one vector, and so do gradients:
    a step is a handful of operations however many layers there are, and a CUDA graph finds all in its place.

    `last` are parameters that lie at the vector's end, so that their momentum can be forgotten.
    """

    def __init__(self, net: nn.Module, last: nn.Module, momentum: float = 0.9, decay: float = 2e-4) -> None:
        tail = {id(p) for p in last.parameters()}
        parameters = [p for p in net.parameters() if id(p) not in tail] + list(last.parameters())
        total = sum(p.numel() for p in parameters)
        self.values = torch.empty(total, device=parameters[0].device)
        self.gradient, self.velocity = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.momentum, self.decay = momentum, decay
        self._tail = total - sum(p.numel() for p in last.parameters())
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            view, slope = (_shaped(whole[start:end], parameter.shape) for whole in (self.values, self.gradient))
            view.copy_(parameter.detach())
            parameter.data, parameter.grad = view, slope
            start = end

    @torch.no_grad()
    def step(self, lr: torch.Tensor) -> None:
        """One step along `gradient`, with lr () on the device."""
        slope = self.gradient.add(self.values, alpha=self.decay)
        self.velocity.mul_(self.momentum).add_(slope)
        self.values.sub_(slope.add_(self.velocity, alpha=self.momentum).mul_(lr))

    def forget_last(self) -> None:
        """Momentum 0 for the parameters `last`."""
        self.velocity[self._tail :].zero_()


def _shaped(part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A view of a vector; convolutions (out, in, h, w) with their channels last."""
    if len(shape) != 4:
        return part.view(shape)
    out, entering, height, width = shape
    return part.view(out, height, width, entering).permute(0, 3, 1, 2)
