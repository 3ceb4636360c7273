"""A backbone as the command names it, and the same one loaded: pixels in, embeddings out."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_al.backbones import torchvision_models
from ray_al.backbones.preprocess import Preprocess
from ray_al.backbones.weights import put_weights, read_weights, weights_hash
from ray_al.data.faults import DataError, choices

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
DTYPES = ("float16", "float32")
_PYTHON_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class BackboneSpec:
    """What decides the numbers: network, weights, arithmetic, and the type in which embeddings are kept."""

    name: str  # a network of torchvision, or package.module:function
    weights: str | None  # a name of torchvision's, or a file; None: DEFAULT, or whatever the function returns
    precision: str = "float32"
    dtype: str = "float16"


@dataclass(frozen=True)
class Loaded:
    """A backbone that was checked in this process, and what travels to the workers."""

    spec: BackboneSpec
    preprocess: Preprocess
    network: Any | None  # a torch module, which workers take with its weights; None: they call the user's function
    identity: dict[str, Any]  # for the manifest: names and hashes

    def embedder(self, device: str, network: Any | None = None) -> Embedder:
        """Ready to use on a device; `network` is this process's copy where that was sent by itself."""
        made = network or self.network or _call(self.spec.name)
        return Embedder(made, self.spec, self.preprocess, device)


def load(spec: BackboneSpec, changes: Mapping[str, Any] | None = None) -> Loaded:
    """Load it in this process and try it on one gray image. `changes` are to the preprocessing of its weights.

    Raises:
        DataError: an unknown name, weights that do not fit, a function that fails or returns something else.
    """
    identity: dict[str, Any] = {"name": spec.name}
    if _PYTHON_PATH.fullmatch(spec.name):
        network, usual = _own(spec), Preprocess()
        identity["source"] = _source_hash(spec.name)
    else:
        network, usual = torchvision_models.load_network(spec.name, spec.weights or "DEFAULT")
    preprocess = replace(usual, **(changes or {}))
    if not _is_network(network):
        return Loaded(spec, preprocess, None, {**identity, "weights": None})
    loaded = Loaded(spec, preprocess, network, {**identity, "weights": weights_hash(network)})
    side = loaded.preprocess.crop
    try:
        loaded.embedder("cpu").embed(np.full((1, side, side, 3), 128, np.uint8))
    except DataError:
        raise
    except Exception as error:  # a network may raise anything on an image of a size that it cannot take
        fault = f"--backbone: {spec.name} fails on an image of {side} x {side}: {type(error).__name__}: {error}"
        raise DataError([fault]) from error
    return loaded


class Embedder:
    """(n, S, S, 3) uint8 pixels -> (n, D) embeddings, on one device."""

    def __init__(self, network: Any, spec: BackboneSpec, preprocess: Preprocess, device: str) -> None:
        import torch

        if device == "cpu":
            # One thread, so that sums have one order whatever the machine; actors are the parallelism.
            torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False  # it picks algorithms by timing them: other runs, other bits
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec.precision == "tf32"
        self._network = network
        if _is_network(network):
            network.eval().requires_grad_(False)
            self._network = network.to(device, memory_format=torch.channels_last)
        self._spec, self._preprocess, self._device = spec, preprocess, device

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(n, D) in the spec's dtype; too large for it becomes infinite.

        Raises:
            DataError: what comes out is no (n, D) tensor of numbers.
        """
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pixels from shared memory are read-only, and only read
            images = torch.from_numpy(pixels).to(self._device)
        half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self._spec.precision)
        with torch.inference_mode(), torch.autocast(images.device.type, half, enabled=half is not None):
            out = self._network(self._preprocess.normalize(images))
        if not isinstance(out, torch.Tensor | np.ndarray) or out.ndim < 1 or len(out) != len(pixels):
            shape = tuple(getattr(out, "shape", ())) or type(out).__name__
            raise DataError([f"--backbone: {self._spec.name} gave {shape} for {len(pixels)} images; it must be (n, D)"])
        flat = torch.as_tensor(out).reshape(len(pixels), -1)
        return flat.to(getattr(torch, self._spec.dtype)).cpu().numpy()


def _own(spec: BackboneSpec) -> Any:
    """What the user's function returns, with the weights of the file if one is given."""
    network = _call(spec.name)
    if spec.weights is not None:
        if not _is_network(network):
            raise DataError([f"--weights: {spec.name} returns no torch.nn.Module to put them into"])
        put_weights(network, read_weights(Path(spec.weights).expanduser()), (), spec.weights)
    return network


def _is_network(made: Any) -> bool:
    import torch

    return isinstance(made, torch.nn.Module)


def _call(python_path: str) -> Callable[..., Any]:
    module_name, _, function_name = python_path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise DataError([f"--backbone: cannot import {module_name}: {type(error).__name__}: {error}"]) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError([f"--backbone: {module_name} has no function {function_name!r}{choices(function_name, known)}"])
    try:
        made = function()
    except Exception as error:  # the user's code may raise anything; its traceback stays attached
        raise DataError([f"--backbone: {python_path} failed: {type(error).__name__}: {error}"]) from error
    if not callable(made):
        raise DataError([f"--backbone: {python_path} returned {type(made).__name__}; give a network or a function"])
    return made


def _source_hash(python_path: str) -> str:
    """SHA-256 of the file that defines the user's function."""
    file = getattr(sys.modules[python_path.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()
