"""The 13-layer network (Laine & Aila 2017; Tarvainen & Valpola 2017), as Simeoni et al. use it (arXiv 1911.08177)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIDE = 32  # pixels; smaller images get a black border
_SLOPE = 0.1
# Kernel, padding and channels in units of the first layer's; a pooling and a dropout follow layers 3 and 6.
_LAYERS = ((3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 1, 2), (3, 1, 2), (3, 1, 2), (3, 0, 4), (1, 0, 2), (1, 0, 1))
_POOLED = (2, 5)


class WeightNormed(nn.Module):
    """Weights gain * direction / |direction|, one length per output (Salimans & Kingma 2016)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(*shape))
        self.gain = nn.Parameter(torch.empty(shape[0], *[1] * (len(shape) - 1)))

    @property
    def weight(self) -> torch.Tensor:
        axes = tuple(range(1, self.direction.ndim))
        return self.direction * (self.gain / torch.linalg.vector_norm(self.direction, dim=axes, keepdim=True))


class Convolution(WeightNormed):
    """Weight-normed convolution, BatchNorm, LeakyReLU(0.1).

    The convolution has no bias: BatchNorm takes it out again exactly, so that it would learn nothing.
    """

    def __init__(self, entering: int, leaving: int, kernel: int, padding: int) -> None:
        super().__init__(leaving, entering, kernel, kernel)
        self.padding = padding
        self.norm = nn.BatchNorm2d(leaving)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(x, self.weight.to(x.dtype), padding=self.padding)
        return functional.leaky_relu(self.norm(x), _SLOPE, inplace=True)


class Head(WeightNormed):
    """Weight-normed linear layer: (n, width) to (n, classes). Its gains learn the scale of the logits."""

    def __init__(self, entering: int, classes: int) -> None:
        super().__init__(classes, entering)
        self.bias = nn.Parameter(torch.empty(classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class ConvNet13(nn.Module):
    """(n, 3, 32, 32) images, standardized, to features of length 1 and logits; with `width` 128 it is the paper's.

    `precision` is the type of the convolutions; features, logits and all parameters are float32.
    """

    def __init__(self, classes: int, width: int = 128, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.precision = precision
        layers, entering = [], 3
        for kernel, padding, wide in _LAYERS:
            layers.append(Convolution(entering, wide * width, kernel, padding))
            entering = wide * width
        self.layers = nn.ModuleList(layers)
        self.head = Head(entering, classes)
        self.noise: torch.Generator | None = None  # what dropout draws from; needed in training alone

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(n, width) float32 features of length 1."""
        x = images.to(self.precision)
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in _POOLED:
                x = self._dropout(functional.max_pool2d(x, 2))
        return functional.normalize(x.to(self.head.direction.dtype).mean((2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, classes) float32 logits."""
        return self.head(self.embed(images))

    def _dropout(self, x: torch.Tensor) -> torch.Tensor:
        """Half of the values become 0, the others double. torch's own draws from the global generator."""
        if not self.training:
            return x
        return x * torch.empty_like(x).bernoulli_(0.5, generator=self.noise).mul_(2)


def make_network(classes: int, width: int, precision: torch.dtype, rng: np.random.Generator) -> ConvNet13:
    """A network with weights drawn from `rng`, in memory with channels last.

    Every weight is uniform within 1 / sqrt(its inputs), and gains are the lengths of what was drawn: what torch's
    layers begin with. torch's global random state is not touched.
    """
    net = _blank(classes, width, precision)
    with torch.no_grad():
        for layer in convolutions(net):
            _draw(layer, rng)
        reset_head(net, rng)
    return net


def convolutions(net: ConvNet13) -> list[Convolution]:
    return [layer for layer in net.modules() if isinstance(layer, Convolution)]


def reset_head(net: ConvNet13, rng: np.random.Generator) -> None:
    """Draw the last layer anew, in place."""
    with torch.no_grad():
        bound = _draw(net.head, rng)
        bias = rng.uniform(-bound, bound, net.head.bias.shape)
        net.head.bias.copy_(torch.from_numpy(bias.astype(np.float32)))


def body_of(net: ConvNet13) -> dict[str, torch.Tensor]:
    """Everything but the last layer, BatchNorm's running moments included; contiguous, on the CPU."""
    return {name: value for name, value in tensors_of(net).items() if not name.startswith("head.")}


def tensors_of(net: ConvNet13) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}


def put_body(net: ConvNet13, body: Mapping[str, torch.Tensor]) -> None:
    """Copy a body into a network.

    Raises:
        ValueError: it is that of another network.
    """
    own = {name: value for name, value in net.state_dict().items() if not name.startswith("head.")}
    if own.keys() != body.keys() or any(own[name].shape != body[name].shape for name in own):
        raise ValueError("these weights are not those of a 13-layer network of this width")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(body[name])


def network_of(tensors: Mapping[str, torch.Tensor], precision: torch.dtype) -> ConvNet13:
    """The network that `tensors_of` was taken from. Raises ValueError for anything else."""
    try:
        classes, width = tensors["head.direction"].shape
        net = _blank(classes, width, precision)
        net.load_state_dict(dict(tensors))
    except (KeyError, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"these are not the weights of a 13-layer network: {problem}") from error
    return net


def _blank(classes: int, width: int, precision: torch.dtype) -> ConvNet13:
    """Laid out on the meta device first: torch's own initialization would draw from the global random state."""
    with torch.device("meta"):
        net = ConvNet13(classes, width, precision)
    net.to_empty(device="cpu")
    for layer in convolutions(net):
        layer.norm.reset_parameters()
    return net.to(memory_format=torch.channels_last)


def _draw(layer: WeightNormed, rng: np.random.Generator) -> float:
    shape = tuple(layer.direction.shape)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    layer.direction.copy_(torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32)))
    axes = tuple(range(1, len(shape)))
    layer.gain.copy_(torch.linalg.vector_norm(layer.direction, dim=axes, keepdim=True))
    return bound
