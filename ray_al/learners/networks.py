"""A small convolutional network for images: its layout, training and application. It loads torch; `cnn` does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STRIDED_FROM = 24  # images of this side or more enter at half resolution: a quarter of the work
FEWEST_STEPS = 200  # so that ten images are fitted, too, and not merely visited
APPLY_BATCH = 256  # rows per forward pass when the network is applied


@dataclass(frozen=True)
class Training:
    """How a network is trained: AdamW, learning rate falling from `lr` to 0 along a half cosine."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float
    augment: bool


class SmallCnn(nn.Module):
    """Three pairs of 3x3 convolutions (`width`, 2x, 4x channels) with BatchNorm and ReLU, global average, linear.

    Pairs are parted by 2x2 max pooling while at least 2 pixels a side remain after it.
    """

    mean: torch.Tensor  # (1, channels, 1, 1)
    scale: torch.Tensor

    def __init__(self, channels: int, side: int, classes: int, width: int) -> None:
        super().__init__()
        self.layout = (channels, side, classes, width)
        stride = 2 if side >= STRIDED_FROM else 1
        side = math.ceil(side / stride)
        moments = (1, channels, 1, 1)
        layers: list[nn.Module] = []
        for stage in range(3):
            if stage and side >= 4:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            wide = width * 2**stage
            for first in (True, False):
                entry = stride if first and stage == 0 else 1
                layers.append(nn.Conv2d(channels, wide, 3, stride=entry, padding=1, bias=False))
                layers += [nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
                channels = wide
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)
        self.register_buffer("mean", torch.zeros(moments))
        self.register_buffer("scale", torch.ones(moments))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 4 * width) features of (n, channels, H, W) images in their own units."""
        return self.features((images - self.mean) / self.scale).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(images))


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with torch's defaults. torch's own costs each process 1 s and 150 MB: the first
    optimizer that is made imports the compiler."""

    def __init__(self, parameters: list[nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay, self.steps = parameters, weight_decay, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        self.steps += 1
        mean_weight, square_weight = 1 - 0.9**self.steps, 1 - 0.999**self.steps  # the moments start at 0
        for parameter, (mean, square) in zip(self.parameters, self.moments, strict=True):
            gradient = parameter.grad
            assert gradient is not None
            parameter.mul_(1 - lr * self.weight_decay)
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            spread = square.sqrt().div_(math.sqrt(square_weight)).add_(1e-8)
            parameter.addcdiv_(mean, spread, value=-lr / mean_weight)


def make_cnn(images: np.ndarray, classes: int, width: int, rng: np.random.Generator) -> SmallCnn:
    """A network for images like these (n, H, W[, channels]), standardized by their mean and deviation.

    Weights are drawn from `rng` (He et al. 2015). The network is laid out on the meta device first: torch's own
    initialization would draw from the global random state.
    """
    channels = images.shape[3] if images.ndim == 4 else 1
    with torch.device("meta"):
        net = SmallCnn(channels, min(images.shape[1:3]), classes, width)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                shape = tuple(module.weight.shape)
                gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0  # a ReLU halves the second moment
                weights = rng.standard_normal(shape) * math.sqrt(gain / math.prod(shape[1:]))
                module.weight.copy_(torch.from_numpy(weights.astype(np.float32)))
                if module.bias is not None:
                    module.bias.zero_()
        floats = images.reshape(-1, channels).astype(np.float64)
        net.mean = torch.from_numpy(floats.mean(0).astype(np.float32)).reshape(1, channels, 1, 1)
        spread = np.maximum(floats.std(0), 1e-6)
        net.scale = torch.from_numpy(spread.astype(np.float32)).reshape(1, channels, 1, 1)
    return net.to(memory_format=torch.channels_last)


def cnn_bytes(net: SmallCnn) -> bytes:
    """The network as a safetensors file: its state and, as "layout", what `SmallCnn` is made with."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    return save({**tensors, "layout": torch.tensor(net.layout)})


def cnn_of(saved: bytes) -> SmallCnn:
    """The network of `cnn_bytes`, ready to be applied on a CPU. Raises ValueError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(saved)
        with torch.device("meta"):
            net = SmallCnn(*tensors.pop("layout").tolist())
        net.load_state_dict(tensors, assign=True)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"this is no network that cnn has saved: {error}") from error
    return net.to(memory_format=torch.channels_last).eval()


def train(
    net: SmallCnn,
    images: np.ndarray,
    targets: np.ndarray,
    training: Training,
    order: np.random.Generator,
    shifts: np.random.Generator,
    device: torch.device,
) -> None:
    """Train in place on all images (n, H, W[, channels]), which stay on the device, for whole passes in random order.

    Raises:
        FloatingPointError: the loss became infinite or NaN; the message has the epoch.
    """
    inputs, answers = _to_tensor(images, device), torch.from_numpy(targets).to(device)
    n = len(targets)
    batch = max(2, min(training.batch, n))  # BatchNorm needs two values per channel; a lone image comes twice
    per_epoch = math.ceil(n / batch)
    steps = max(training.epochs * per_epoch, FEWEST_STEPS)
    passes = [order.permutation(n) for _ in range(math.ceil(steps * batch / n))]
    plan = torch.from_numpy(np.concatenate(passes)[: steps * batch].reshape(steps, batch)).to(device)
    net.to(device).train()
    optimizer = AdamW(list(net.parameters()), training.weight_decay)
    total = torch.zeros((), device=device)
    for step in range(steps):
        rows = inputs[plan[step]]
        if training.augment:
            rows = _shift(rows, shifts)
        loss = functional.cross_entropy(net(rows), answers[plan[step]])
        net.zero_grad()
        loss.backward()
        optimizer.step(training.lr * (1 + math.cos(math.pi * step / steps)) / 2)
        total += loss.detach()
        # One look per epoch: asking a GPU for the loss stops its queue.
        looked_at = (step + 1) % per_epoch == 0 or step + 1 == steps
        if looked_at and not math.isfinite(total.item()):
            raise FloatingPointError(f"cnn: the loss is {total.item()} in epoch {step // per_epoch + 1}")
    net.eval()


def apply(net: SmallCnn, images: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) class probabilities and (n, D) embedding of images, float32.

    Every pass has the same number of rows, the last one padded: a row's last bits do not depend on its neighbors.
    """
    probs = np.empty((len(images), net.head.out_features), np.float32)
    embedding = np.empty((len(images), net.head.in_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), APPLY_BATCH):
            rows = images[start : start + APPLY_BATCH]
            padding = np.zeros((APPLY_BATCH - len(rows), *rows.shape[1:]), rows.dtype)
            features = net.embed(_to_tensor(np.concatenate([rows, padding]), device))
            chances = net.head(features).softmax(1)
            embedding[start : start + len(rows)] = features[: len(rows)].cpu().numpy()
            probs[start : start + len(rows)] = chances[: len(rows)].cpu().numpy()
    probs.flags.writeable = embedding.flags.writeable = False  # models keep and share them
    return probs, embedding


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Sums in a fixed order: `threads` CPU threads, deterministic full-precision convolutions. Restored at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if this process may use one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)


def _to_tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """(n, channels, H, W) float32, channels last in memory."""
    images = images[..., None] if images.ndim == 3 else images
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.float().permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _shift(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each image moved by up to 2 pixels both ways (1 in small images); the border is repeated into the gap."""
    n, _, height, width = images.shape
    most = 2 if min(height, width) >= 16 else 1
    moves = rng.integers(-most, most + 1, (2, n, 1))
    rows = np.clip(np.arange(height) + moves[0], 0, height - 1)  # (n, H)
    columns = np.clip(np.arange(width) + moves[1], 0, width - 1)  # (n, W)
    item = torch.arange(n, device=images.device)[:, None, None]
    down = torch.from_numpy(rows).to(images.device)[:, :, None]
    across = torch.from_numpy(columns).to(images.device)[:, None, :]
    return images.permute(0, 2, 3, 1)[item, down, across].permute(0, 3, 1, 2)
