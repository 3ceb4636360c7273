"""Weights: from a local file without unpickling objects, into a network, and their hash."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_al.data.faults import DataError, choices

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")


def read_weights(path: Path) -> dict[str, Any]:
    """Name -> tensor, from .safetensors, or from what torch.save wrote of plain tensors.

    A checkpoint's inner dictionary (state_dict, model) is found; a prefix `module.` of all names is taken off.

    Raises:
        DataError: the file is missing, holds other than tensors, or cannot be read.
    """
    import pickle

    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError([f"--weights: there is no file {path}"])
    try:
        raw: Any = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except pickle.UnpicklingError as error:
        fault = f"--weights: {path} holds Python objects, or is no torch file; only plain tensors are read"
        raise DataError([fault]) from error
    except OSError as error:
        raise DataError([f"--weights: {path} cannot be read: {error.strerror or error}"]) from error
    except Exception as error:  # bytes of something else may raise anything
        wanted = "give a state dict saved by torch.save, or a .safetensors file"
        reason = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise DataError([f"--weights: {path} cannot be read as weights ({reason}); {wanted}"]) from error
    inner = next((raw[key] for key in _WRAPPERS if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping)), raw)
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(v, torch.Tensor) for v in inner.values()):
        raise DataError([f"--weights: {path} holds no dictionary of tensors (a state dict)"])
    prefixed = all(name.startswith("module.") for name in inner)
    return {name.removeprefix("module.") if prefixed else name: value for name, value in inner.items()}


def _torch_load(path: Path) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickle protocols: what cannot be read is a fault anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def put_weights(module: Any, state: Mapping[str, Any], leave_out: tuple[str, ...], source: str) -> None:
    """Copy a state dict into a module; names that begin as in `leave_out` (the head that is off) may be there, too.

    Raises:
        DataError: names that are missing or too many, or other shapes: weights of another network.
    """
    import torch

    own = module.state_dict()
    given = {name: value for name, value in state.items() if name in own or not name.startswith(leave_out)}
    missing, strange = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    # Counters of batch normalization came late: older files lack them, and no output depends on them.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    shapes = [n for n in own.keys() & given.keys() if own[n].shape != given[n].shape]
    if shapes:
        name = min(shapes)
        fault = f"{name} is {tuple(given[name].shape)} in the file and {tuple(own[name].shape)} in the network"
    elif missing:
        fault = f"{len(missing)} of its {len(own)} tensors are missing, e.g. {missing[0]!r}"
        fault += choices(missing[0], strange) if 0 < len(strange) < 10 else ""
    elif strange:
        fault = f"{len(strange)} tensors are not of it, e.g. {strange[0]!r}"
    else:
        with torch.no_grad():  # tensor by tensor: some networks' own loading insists on marks that files may lack
            for name, value in given.items():
                own[name].copy_(value)
        return
    raise DataError([f"--weights: {source} holds weights of another network: {fault}"])


def weights_hash(module: Any) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of the state dict: equal weights, wherever they came from."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()
