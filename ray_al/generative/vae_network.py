"""The convolutional variational auto-encoder: layout, loss, training, encoding. It loads torch; `vae` does not.

Four 3x3 convolutions of 32, 64, 64, 64 filters and RMSprop are the paper's (Pourkamali-Anaraki & Wakin 2019, section
4); strides, the dense layer, the decoder and the training settings are those of the widely used listing with the same
encoder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ray_al.core.seeds import stream
from ray_al.generative.vae import Epoch, TrainedVae, VaeSettings
from ray_al.kernels import blocks

SHARDS = 2  # parts of a batch, each of one CPU thread: fixed, so that sums do not depend on how many threads there are
HIDDEN = 32  # units between the convolutions and the code
ENCODE_BATCH = 256  # rows per pass when images are encoded
LEARNING_RATE, DECAY, EPSILON = 1e-3, 0.9, 1e-7

Gradients = tuple[torch.Tensor, ...]


class ConvVae(nn.Module):
    """Images (n, channels, H, W) in 0..1 of any size; the code sees them at half resolution."""

    def __init__(self, channels: int, height: int, width: int, dims: int) -> None:
        super().__init__()
        self.sides = math.ceil(height / 2), math.ceil(width / 2)
        flat = 64 * self.sides[0] * self.sides[1]
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.hidden = nn.Linear(flat, HIDDEN)
        self.mean = nn.Linear(HIDDEN, dims)
        self.log_variance = nn.Linear(HIDDEN, dims)
        self.unfold = nn.Linear(dims, flat)
        odd = 1 - height % 2, 1 - width % 2  # the sides of doubled images, one less where they were odd
        self.grow = nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=odd)
        self.paint = nn.Conv2d(32, channels, 3, padding=1)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of q(z|x), (n, d) each."""
        features = self.features(images).permute(0, 2, 3, 1).flatten(1)  # channels last, as they lie in memory
        hidden = self.hidden(features).relu()
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Logits (n, channels, H, W) of the pixels' values, of codes (n, d)."""
        features = self.unfold(codes).relu().unflatten(1, (*self.sides, 64)).permute(0, 3, 1, 2)
        return self.paint(self.grow(features).relu())


def make_vae(shape: tuple[int, ...], dims: int, rng: np.random.Generator) -> ConvVae:
    """An untrained network for images (H, W[, channels]): Glorot uniform weights drawn from `rng`, biases 0.

    It is laid out on the meta device first: torch's own initialization would draw from the global random state.
    """
    with torch.device("meta"):
        net = ConvVae(shape[2] if len(shape) == 3 else 1, shape[0], shape[1], dims)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                size = tuple(module.weight.shape)
                limit = math.sqrt(6 / ((size[0] + size[1]) * math.prod(size[2:])))
                module.weight.copy_(torch.from_numpy(rng.uniform(-limit, limit, size).astype(np.float32)))
                assert module.bias is not None
                module.bias.zero_()
    return net.to(memory_format=torch.channels_last)


def loss_terms(net: ConvVae, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per image, (n,) each: cross-entropy per pixel at one sample mean + deviation * noise, and KL in nats."""
    mean, log_variance = net.encode(images)
    logits = net.decode(mean + (0.5 * log_variance).exp() * noise)
    entropy = functional.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).mean(1)
    return entropy, 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


class RmsProp:
    """RMSprop as Keras has it by default. torch's own costs each process 1 s and 150 MB: it imports the compiler."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Gradients) -> None:
        torch._foreach_mul_(self.squares, DECAY)
        torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - DECAY)
        spread = torch._foreach_sqrt(self.squares)
        torch._foreach_add_(spread, EPSILON)
        torch._foreach_addcdiv_(self.parameters, gradients, spread, -LEARNING_RATE)


class Training:
    """Passes over images (N, H, W[, channels]), `white` being the value of a white pixel; the network changes in place.

    Order and noise of every pass are streams of the settings' seed. On a CPU the result has the same bits for any
    number of threads.
    """

    def __init__(
        self, net: ConvVae, images: np.ndarray, white: float, settings: VaeSettings, device: torch.device
    ) -> None:
        self.net, self.settings, self.device = net.to(device), settings, device
        self.images = Images(images, white, device)
        self.weight = settings.kl_weight(math.prod(images.shape[1:]))
        self.optimizer = RmsProp(net.parameters())

    def epoch(self, number: int) -> Epoch:
        """Pass `number`, counted from 1.

        Raises:
            FloatingPointError: the loss became infinite or NaN.
        """
        started, count, batch = time.monotonic(), len(self.images), self.settings.batch
        order = torch.from_numpy(stream(self.settings.seed, "order", number).permutation(count)).to(self.device)
        drawn = stream(self.settings.seed, "noise", number).standard_normal((count, self.settings.dims), np.float32)
        noise = torch.from_numpy(drawn).to(self.device)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        with _exact_convolutions():
            for start in range(0, count, batch):
                sums += self._step(order[start : start + batch], noise[start : start + batch])
        reconstruction, kl = (sums / count).tolist()  # one look per pass: asking a GPU for the loss stops its queue
        loss = reconstruction + self.weight * kl
        if not math.isfinite(loss):
            raise FloatingPointError(f"vae: the loss is {loss} in epoch {number}")
        return Epoch(number, loss, reconstruction, kl, time.monotonic() - started)

    def _step(self, ids: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """One descent on a batch; (2,) its sums of cross-entropy and KL."""

        def work(part: tuple[torch.Tensor, torch.Tensor]) -> tuple[Gradients, torch.Tensor]:
            entropy, kl = loss_terms(self.net, self.images.take(part[0]), part[1])
            loss = (entropy + self.weight * kl).sum() / len(ids)
            gradients = torch.autograd.grad(loss, self.optimizer.parameters)
            return gradients, torch.stack([entropy.detach().sum(), kl.detach().sum()]).double()

        def join(parts: list[tuple[Gradients, torch.Tensor]]) -> torch.Tensor:
            (gradients, sums), *rest = parts
            for more, theirs in rest:
                torch._foreach_add_(gradients, more)
                sums = sums + theirs
            self.optimizer.step(gradients)
            return sums

        if self.device.type != "cpu":
            return join([work((ids, noise))])
        shards = min(SHARDS, len(ids))
        parts = blocks.run(work, zip(ids.tensor_split(shards), noise.tensor_split(shards), strict=True))
        return blocks.alone(lambda: join(parts))


class Images:
    """Images as a network takes them, batch by batch: (n, channels, H, W) float32 in 0..1, channels last in memory.

    On a GPU they lie there as bytes; on a CPU they stay where they are, on the disk if need be.
    """

    def __init__(self, images: np.ndarray, white: float, device: torch.device) -> None:
        self._images, self._white = images, white
        self._there = None if device.type == "cpu" else torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Images `ids`, which lie on the device."""
        rows = torch.from_numpy(self._images[ids.numpy()]) if self._there is None else self._there[ids]
        rows = rows[..., None] if rows.ndim == 3 else rows
        return rows.float().div_(self._white).permute(0, 3, 1, 2)


def encode(net: ConvVae, images: np.ndarray, white: float, device: torch.device) -> np.ndarray:
    """(N, d) float32 means of q(z|x).

    Every pass has the same number of rows, the last one filled up: a row's bits do not depend on its neighbors.
    """
    source = Images(images, white, device)

    def work(start: int) -> np.ndarray:
        ids = torch.arange(start, start + ENCODE_BATCH, device=device).clamp_(max=len(images) - 1)
        with torch.inference_mode():  # of this thread
            return net.encode(source.take(ids))[0][: len(images) - start].cpu().numpy()

    starts = range(0, len(images), ENCODE_BATCH)
    with _exact_convolutions():
        return np.concatenate(blocks.run(work, starts) if device.type == "cpu" else [work(start) for start in starts])


def fit(images: Mapping[str, np.ndarray], white: float, settings: VaeSettings) -> Iterator[Epoch | TrainedVae]:
    """Train on the images called "pool" and encode all: yields after every pass, and the trained auto-encoder last.

    Raises:
        ValueError: the device is not there.
        FloatingPointError: the loss became infinite or NaN.
    """
    device = pick_device(settings.device)
    net = make_vae(images["pool"].shape[1:], settings.dims, stream(settings.seed, "init-weights"))
    training = Training(net, images["pool"], white, settings, device)
    history = []
    for number in range(1, settings.epochs + 1):
        history.append(training.epoch(number))
        yield history[-1]
    means = {split: encode(net, rows, white, device) for split, rows in images.items()}
    weights = {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in net.state_dict().items()}
    yield TrainedVae(weights, means, tuple(history), _name(device))


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if this process may use one.

    Raises:
        ValueError: it is a GPU that is not there.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name}, but this process can use {torch.cuda.device_count()} GPUs")
    return device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """On a GPU: the same algorithm every time, in full precision."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
