"""Torchvision's classification networks by name, without their classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

from ray_al.backbones.preprocess import Preprocess
from ray_al.backbones.weights import put_weights, read_weights
from ray_al.data.faults import DataError, choices

# What torchvision's builders set themselves when they are given weights of theirs, and not for weights from a file.
_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": False}
_OPTIONS = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
_FILES = (".safetensors", ".pt", ".pth", ".bin")


def names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def check_name(name: str) -> None:
    if name not in names():
        raise DataError([f"--backbone: unknown network {name!r}{choices(name, names())}; or package.module:function"])


def is_weights_file(weights: str) -> bool:
    return weights.endswith(_FILES) or "/" in weights


def load_network(name: str, weights: str) -> tuple[Any, Preprocess]:
    """The network in evaluation mode, giving the input of its last layer (B, D); and the preprocessing of its weights.

    `weights` is the name of one of torchvision's (DEFAULT, IMAGENET1K_V2, ...), fetched if this machine does not have
    it yet, or a local file. With a file, the preprocessing is that of torchvision's DEFAULT weights.

    Raises:
        DataError: unknown names, a file that does not fit, no network to fetch from.
    """
    from torchvision import models

    check_name(name)
    if is_weights_file(weights):
        state = read_weights(Path(weights).expanduser())
        network = models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
        put_weights(network, state, (take_head_off(network), "aux1.", "aux2.", "AuxLogits."), weights)
        return network.eval(), preprocess_of(name, "DEFAULT")
    chosen = _weights(name, weights)
    try:
        network = models.get_model(name, weights=chosen)
    except (URLError, OSError, RuntimeError) as error:
        ways = "fetch it where there is a network and give the file with --weights FILE"
        raise DataError([f"--weights: {name} {chosen.name} cannot be fetched ({error}); {ways}"]) from error
    take_head_off(network)
    return network.eval(), preprocess_of(name, weights)


def preprocess_of(name: str, weights: str) -> Preprocess:
    """What torchvision's weights were evaluated with."""
    preset = _weights(name, weights).transforms()
    return Preprocess(
        resize=int(preset.resize_size[0]),
        crop=int(preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _weights(name: str, weights: str) -> Any:
    from torchvision import models

    known = models.get_model_weights(name)
    if weights not in known.__members__:
        known_names = choices(weights, known.__members__)
        raise DataError([f"--weights: {name} has no weights {weights!r}{known_names}; or give a file"])
    return known[weights]


def take_head_off(network: Any) -> str:
    """Replace the last linear layer by nothing, so that its input comes out; returns the layer's name.

    SqueezeNet has none: its classifier, a convolution, gives way to the average over the places before it.
    """
    import torch

    if type(network).__name__ == "SqueezeNet":
        network.classifier = torch.nn.AdaptiveAvgPool2d(1)
        return "classifier."
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    parent, _, child = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())
    return f"{linear[-1]}."
