"""From the bytes of an image to pixels, as torchvision's weights expect them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from ray_al.backbones import preprocess
from ray_al.backbones.preprocess import Preprocess, Undecodable
from ray_al.backbones.torchvision_models import preprocess_of
from tests.data.picture_files import encoded, picture


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "inception_v3"])
@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_images_enter_as_torchvision_sends_them(name: str, weights: str) -> None:
    preset = models.get_model_weights(name)[weights].transforms()
    ours = preprocess_of(name, weights)
    for size in ((375, 500), (500, 333), (231, 230), (40, 64)):
        image = Image.fromarray(picture(3, *size))
        out = io.BytesIO()
        image.save(out, "png")
        pixels = torch.from_numpy(ours.pixels(out.getvalue())[None].copy())
        torch.testing.assert_close(ours.normalize(pixels)[0], preset(image), atol=1e-6, rtol=1e-5)


def png(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_pixels_of_many_modes() -> None:
    plain = Preprocess(resize=24, crop=24)
    gray = Image.fromarray(picture(1)).convert("L")
    expected = plain.pixels(png(gray.convert("RGB")))
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    for image in (gray, gray.convert("P"), gray.convert("RGBA"), wide):
        np.testing.assert_array_equal(plain.pixels(png(image)), expected)
    assert plain.pixels(png(Image.fromarray(picture(1)).convert("CMYK"), "jpeg")).shape == (24, 24, 3)
    turned = Image.fromarray(np.rot90(picture(1)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise when shown
    np.testing.assert_array_equal(plain.pixels(png(turned, exif=exif)), plain.pixels(png(Image.fromarray(picture(1)))))


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (4000, 1)])
def test_stripes_take_no_memory(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled whole, they are 256 x 15,360,000: more than Pillow can hold."""
    before, largest = Image.Image.resize, []

    def resize(self: Image.Image, wanted: tuple[int, int], *args: object) -> Image.Image:
        largest.append(wanted[0] * wanted[1])
        return before(self, wanted, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", resize)
    gray = Image.fromarray(np.full(size, 99, np.uint8))
    np.testing.assert_array_equal(Preprocess().pixels(png(gray)), np.full((224, 224, 3), 99))
    assert largest == [256 * 224]


@pytest.mark.parametrize("size", [(900, 30), (30, 900), (60, 50)])
def test_what_is_kept_of_a_stripe_is_its_middle(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(Image.fromarray(picture(3, *size)))
    whole = Preprocess().pixels(data).astype(int)
    monkeypatch.setattr(preprocess, "_SCALED_WHOLE", 0)
    np.testing.assert_allclose(Preprocess().pixels(data), whole, atol=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "UnidentifiedImageError: cannot identify image file"),
        (b"GIF89a", "UnidentifiedImageError"),
        (encoded(1, "jpeg")[:400], "OSError: Truncated File Read"),
        (encoded(1, "png")[:120], "truncated"),
        (encoded(1, "webp")[:100], "cannot identify|could not|truncated|decoding"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason) as first:
        Preprocess().pixels(data)
    with pytest.raises(Undecodable) as second:
        Preprocess().pixels(bytes(data))
    assert str(first.value) == str(second.value)  # no addresses: the report must be the same every time
