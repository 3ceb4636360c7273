"""Backbones: heads off, weights in, images as torchvision's weights expect them; and every way to get one wrong."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from ray_al.backbones.backbone import BackboneSpec, load
from ray_al.backbones.preprocess import Preprocess
from ray_al.backbones.torchvision_models import check_name, load_network, names, preprocess_of, take_head_off
from ray_al.data.faults import DataError
from tests.data.picture_files import encoded

# One of each family; the width is what the papers call the penultimate features.
WIDTHS = {
    "alexnet": 4096, "convnext_tiny": 768, "densenet121": 1024, "efficientnet_b0": 1280, "efficientnet_v2_s": 1280,
    "googlenet": 1024, "inception_v3": 2048, "maxvit_t": 512, "mnasnet1_0": 1280, "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024, "regnet_y_400mf": 440, "resnet18": 512, "resnet50": 2048, "resnext50_32x4d": 2048,
    "shufflenet_v2_x1_0": 1024, "squeezenet1_1": 512, "swin_t": 768, "swin_v2_t": 768, "vgg11_bn": 4096,
    "vit_b_32": 768, "wide_resnet50_2": 2048,
}  # fmt: skip


def fault(*args: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(BackboneSpec(*args), **options)  # type: ignore[arg-type]
    (message,) = caught.value.faults
    return message


@pytest.mark.parametrize("name", WIDTHS)
def test_the_input_of_the_last_layer_comes_out(name: str) -> None:
    preset = preprocess_of(name, "DEFAULT")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # RegNets compute with tensors while they are built, which tensors without data cannot.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = models.get_model(name, weights=None, **options).eval().to("meta")
    take_head_off(network)
    out = network(torch.empty(2, 3, preset.crop, preset.crop, device="meta"))
    assert out.shape == (2, WIDTHS[name])


def test_every_network_is_of_a_family_above() -> None:
    families = ("alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception", "maxvit", "mnasnet",
                "mobilenet", "regnet", "resnet", "resnext", "shufflenet", "squeezenet", "swin", "vgg", "vit",
                "wide_resnet")  # fmt: skip
    assert [name for name in names() if not name.startswith(families)] == []


@pytest.fixture
def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint", "headless", "without counters"])
def test_weights_from_files(tmp_path: Path, resnet: torch.nn.Module, form: str) -> None:
    state = dict(resnet.state_dict())
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "headless":
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    if form == "without counters":
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    if form == "safetensors":
        save_file(state, file)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    else:
        torch.save(state, file)
    loaded = load(BackboneSpec("resnet18", str(file), dtype="float32"))
    assert loaded.preprocess == Preprocess(256, 224)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.uint8)
    resnet.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = resnet(loaded.preprocess.normalize(torch.from_numpy(pixels)))
    np.testing.assert_allclose(loaded.embedder("cpu").embed(pixels), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_equal_weights_have_one_hash(tmp_path: Path, resnet: torch.nn.Module) -> None:
    torch.save(resnet.state_dict(), tmp_path / "a.pth")
    save_file(dict(resnet.state_dict()), tmp_path / "b.safetensors")
    one, two = (load(BackboneSpec("resnet18", str(tmp_path / name))) for name in ("a.pth", "b.safetensors"))
    assert one.identity == two.identity
    state = dict(resnet.state_dict())
    state["conv1.weight"] = state["conv1.weight"] + 1e-6
    torch.save(state, tmp_path / "a.pth")
    assert load(BackboneSpec("resnet18", str(tmp_path / "a.pth"))).identity != two.identity


def test_faulty_names_and_weights(tmp_path: Path, resnet: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown network 'resnet19'; did you mean 'resnet1" in fault("resnet19", None)
    assert "resnet18 has no weights 'IMAGENET1K_V9'; did you mean 'IMAGENET1K_V1'?" in fault(
        "resnet18", "IMAGENET1K_V9"
    )
    assert "there is no file" in fault("resnet18", str(tmp_path / "none.pth"))
    save_file(dict(resnet.state_dict()), tmp_path / "w.safetensors")
    other = fault("resnet50", str(tmp_path / "w.safetensors"))
    assert "holds weights of another network: layer1.0.conv1.weight is (64, 64, 3, 3) in the file" in other
    few = {name: value for name, value in resnet.state_dict().items() if "layer4" not in name}
    torch.save(few, tmp_path / "few.pth")
    assert "of its 120 tensors are missing, e.g. 'layer4.0.bn1.bias'" in fault("resnet18", str(tmp_path / "few.pth"))
    torch.save({**resnet.state_dict(), "extra": torch.ones(1)}, tmp_path / "more.pth")
    assert "1 tensors are not of it, e.g. 'extra'" in fault("resnet18", str(tmp_path / "more.pth"))
    (tmp_path / "objects.pth").write_bytes(pickle.dumps(Preprocess()))
    assert "holds Python objects, or is no torch file" in fault("resnet18", str(tmp_path / "objects.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds no dictionary of tensors" in fault("resnet18", str(tmp_path / "list.pth"))
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    (tmp_path / "junk.pt").write_bytes(b"junk\n")
    assert "give a state dict saved by torch.save, or" in fault("resnet18", str(tmp_path / "junk.pt"))
    assert "w.safetensors cannot be read" in fault("resnet18", str(tmp_path / "w.safetensors"))

    def no_network(*args: object, **options: object) -> None:
        from urllib.error import URLError

        raise URLError("no route to host")

    monkeypatch.setattr(models, "get_model", no_network)
    assert "cannot be fetched" in fault("resnet18", "DEFAULT")
    assert "--weights FILE" in fault("resnet18", None)


OWN = """
import torch

class Odd(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))[:1]

def odd():
    return Odd()

def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(2))

def means():
    return lambda images: images.mean((2, 3)).numpy()

def text():
    return "no network"

def raises():
    raise OSError("no such checkpoint")

def needs_64():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 5))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_backbones.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "own_backbones.py"
    sys.modules.pop("own_backbones", None)


def test_own_backbones(own: Path) -> None:
    small = load(BackboneSpec("own_backbones:small", None), {"resize": 32, "crop": 32, "mean": (0.5,) * 3})
    pixels = np.stack([Preprocess(32, 32).pixels(encoded(i)) for i in range(3)])
    out = small.embedder("cpu").embed(pixels)
    assert out.shape == (3, 16)
    assert out.dtype == np.float16
    means = load(BackboneSpec("own_backbones:means", None, dtype="float32"), {"mean": (0.0,) * 3, "std": (1.0,) * 3})
    assert means.identity["weights"] is None
    np.testing.assert_allclose(means.embedder("cpu").embed(pixels), pixels.mean((1, 2)) / 255, rtol=1e-5)
    before = dict(small.identity)
    own.write_text(OWN + "# changed\n")
    assert load(BackboneSpec("own_backbones:small", None)).identity == {**before, "source": load(
        BackboneSpec("own_backbones:small", None)).identity["source"]}  # fmt: skip
    assert load(BackboneSpec("own_backbones:small", None)).identity["source"] != before["source"]


def test_faulty_own_backbones(own: Path, tmp_path: Path) -> None:
    assert "gave (1, 3) for 2 images" in _embedding_fault("own_backbones:odd")
    assert "returned str; give a network or a function" in fault("own_backbones:text", None)
    assert "own_backbones:raises failed: OSError: no such checkpoint" in fault("own_backbones:raises", None)
    assert "has no function 'smal'; did you mean 'small'?" in fault("own_backbones:smal", None)
    assert "cannot import nowhere: ModuleNotFoundError" in fault("nowhere:net", None)
    assert "fails on an image of 224 x 224: RuntimeError" in fault("own_backbones:needs_64", None)
    save_file({"x": torch.ones(1)}, tmp_path / "w.safetensors")
    assert "returns no torch.nn.Module to put them into" in fault(
        "own_backbones:means", str(tmp_path / "w.safetensors")
    )
    assert "weights of another network" in fault("own_backbones:small", str(tmp_path / "w.safetensors"))


def _embedding_fault(name: str) -> str:
    embedder = load(BackboneSpec(name, None), {"resize": 8, "crop": 8}).embedder("cpu")
    with pytest.raises(DataError) as caught:
        embedder.embed(np.zeros((2, 8, 8, 3), np.uint8))
    return str(caught.value)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_arithmetic_of_less_precision_is_near(own: Path, precision: str) -> None:
    pixels = np.stack([Preprocess(32, 32).pixels(encoded(i)) for i in range(4)])
    sizes = {"resize": 32, "crop": 32}
    exact = load(BackboneSpec("own_backbones:small", None, "float32", "float32"), sizes).embedder("cpu").embed(pixels)
    near = load(BackboneSpec("own_backbones:small", None, precision, "float32"), sizes).embedder("cpu").embed(pixels)
    np.testing.assert_allclose(near, exact, atol=0.05)
    assert (precision == "float32") == np.array_equal(near, exact)


def test_a_row_does_not_depend_on_its_neighbors(resnet: torch.nn.Module, tmp_path: Path) -> None:
    save_file(dict(resnet.state_dict()), tmp_path / "w.safetensors")
    spec = BackboneSpec("resnet18", str(tmp_path / "w.safetensors"), dtype="float32")
    embedder = load(spec, {"resize": 32, "crop": 32}).embedder("cpu")
    pixels = np.stack([Preprocess(32, 32).pixels(encoded(i)) for i in range(6)])
    together = embedder.embed(pixels)
    alone = np.zeros_like(pixels)
    alone[2] = pixels[2]
    np.testing.assert_array_equal(embedder.embed(alone)[2], together[2])


def test_known_names() -> None:
    check_name("resnet18")
    with pytest.raises(DataError):
        load_network("raft_large", "DEFAULT")  # no classifier of images
