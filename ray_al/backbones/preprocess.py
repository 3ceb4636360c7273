"""From the bytes of an image to the pixels that a backbone reads."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


# Pixels of a scaled image up to which all of it is scaled, before the cut, as torchvision does it. Beyond, only
# what is kept is scaled, which rounds differently.
_SCALED_WHOLE = 1 << 26


class Undecodable(ValueError):
    """Bytes that are no image, or not one that can be read."""


@dataclass(frozen=True)
class Preprocess:
    """Shorter side to `resize`, the center `crop` x `crop` cut out, then (pixel / 255 - mean) / std.

    Sizes are rounded as torchvision rounds them, so that its weights see the images they were evaluated on.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"  # with antialiasing
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def pixels(self, data: bytes) -> np.ndarray:
        """(crop, crop, 3) uint8 of an encoded image, upright by its EXIF, as RGB.

        Raises:
            Undecodable: with the reason.
        """
        from PIL import Image

        image = _rgb(data)
        width, height = image.size
        short = min(width, height)
        # Truncated, as torchvision does it: 375 x 500 to 256 is 256 x 341.
        size = (int(self.resize * width / short), int(self.resize * height / short))
        left, top = (round((side - self.crop) / 2.0) for side in size)
        if size != image.size:
            method = Image.Resampling[self.interpolation.upper()]
            if size[0] * size[1] <= _SCALED_WHOLE:
                image = image.resize(size, method)
            elif width < height:  # a stripe: all but what is kept would take gigabytes
                box = (0, top * height / size[1], width, (top + self.crop) * height / size[1])
                image, top = image.resize((size[0], self.crop), method, box), 0
            else:
                box = (left * width / size[0], 0, (left + self.crop) * width / size[0], height)
                image, left = image.resize((self.crop, size[1]), method, box), 0
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))

    def normalize(self, pixels: Any) -> Any:
        """(n, crop, crop, 3) uint8 tensor -> (n, 3, crop, crop) float32, on the tensor's device."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.permute(0, 3, 1, 2).contiguous().float() / 255 - mean) / std


def _rgb(data: bytes) -> Any:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF, large images: what matters is whether it decodes
            with Image.open(io.BytesIO(data)) as image:
                if image.mode.startswith("I;16"):
                    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
                if image.mode in ("I", "F"):
                    raise Undecodable(f"pixels of type {image.mode} have no known range")
                return ImageOps.exif_transpose(image).convert("RGB")
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # Pillow raises many types for one cause: bytes that it cannot decode
        text = str(error).partition(" <_io.")[0]  # without the address of the buffer, which differs every time
        raise Undecodable(f"{type(error).__name__}: {text}") from error
