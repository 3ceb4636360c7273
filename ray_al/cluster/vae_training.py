"""Where a run trains the auto-encoders whose codes are its spaces, and what it says of them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console

from ray_al.data.artifact_folder import Artifact
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.vae_space import last, passes
from ray_al.generative.vae import UNUSED, Epoch, TrainedVae, VaeSettings
from ray_al.storage import Storage


@dataclass(frozen=True)
class VaeTraining:
    """Trains on a GPU of the cluster where it has one (`gpus`), else in the driver; prints a line per epoch."""

    storage: str
    console: Console
    gpus: bool

    def __call__(self, artifact: Artifact, settings: VaeSettings, what: str) -> TrainedVae:
        def tell(epoch: Epoch) -> None:
            self._say(
                f"{what}: epoch {epoch.number} of {settings.epochs}, loss {epoch.loss:.4f} "
                f"(reconstruction {epoch.reconstruction:.4f} a pixel, KL {epoch.kl:.2f} nats), {epoch.seconds:.0f} s"
            )

        self._say(f"{what}: training a VAE of {settings.dims} dimensions")
        trained = last(
            self._remote(artifact, settings) if self.gpus and settings.device != "cpu" else passes(artifact, settings),
            tell,
        )
        idle = int((trained.variances < UNUSED).sum())
        if idle:
            self._say(f"{what}: {idle} of {settings.dims} dimensions are unused (variance below {UNUSED})")
        return trained

    def _remote(self, artifact: Artifact, settings: VaeSettings) -> Iterator[Epoch | TrainedVae]:
        try:
            arriving: Any = _passes.remote(self.storage, artifact.name, settings)  # of a generator: one by one
            for item in arriving:
                yield ray.get(item)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # a device that is not there, a loss that is not finite

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


@ray.remote(num_cpus=1, num_gpus=1, max_retries=2)
def _passes(storage: str, name: str, settings: VaeSettings) -> Iterator[Epoch | TrainedVae]:
    yield from passes(ArtifactStore(Storage.open(storage)).open(name), settings)
