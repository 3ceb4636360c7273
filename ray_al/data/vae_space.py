"""The space of a variational auto-encoder: its training on a dataset's artifact, and the files of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ray_al.data.artifact_folder import Artifact
from ray_al.generative.vae import Epoch, TrainedVae, VaeSettings

# How a run has one trained: the dataset's artifact, the settings, what to call it -> the trained auto-encoder.
Train = Callable[[Artifact, VaeSettings, str], TrainedVae]


def train_quietly(artifact: Artifact, settings: VaeSettings, what: str) -> TrainedVae:
    """In this process, telling nobody."""
    return last(passes(artifact, settings), lambda epoch: None)


def passes(artifact: Artifact, settings: VaeSettings) -> Iterator[Epoch | TrainedVae]:
    """Train on the pool's images in a dataset's artifact, encode pool and test; see `vae_network.fit`."""
    from ray_al.generative.vae_network import fit

    images = {
        split: np.load(artifact.path / f"{split}.npy", mmap_mode="r", allow_pickle=False) for split in ("pool", "test")
    }
    yield from fit(images, artifact.config["pixel_max"], settings)


def last(passes: Iterable[Epoch | TrainedVae], progress: Callable[[Epoch], None]) -> TrainedVae:
    """Go through the passes to the trained auto-encoder, telling of each."""
    for item in passes:
        if isinstance(item, TrainedVae):
            return item
        progress(item)
    raise ValueError("the training ended without an auto-encoder")


def write_vae(folder: Path, trained: TrainedVae, settings: VaeSettings) -> None:
    """pool.npy (N, d) and test.npy (M, d), weights.safetensors, and history.json: losses, and variances of the code."""
    from safetensors.numpy import save_file

    for split, means in trained.means.items():
        np.save(folder / f"{split}.npy", means)
    save_file(dict(trained.weights), folder / "weights.safetensors")
    history = {
        "settings": dataclasses.asdict(settings),
        "device": trained.device,
        "epochs": [dataclasses.asdict(epoch) for epoch in trained.history],
        "variances": trained.variances.tolist(),
    }
    (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
