"""What trials and services ask of a cluster, and whether it has it. Imports no Ray, so that a plan can check, too."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ray_al.experiment import TrajectoryConfig
from ray_al.sweep_file import ConfigError, ResourcesSection

# A trial whose fits and scores are done by services mostly waits: several share a core.
SERVED_CPUS = 0.25


@dataclass(frozen=True)
class Demand:
    """CPUs and GPUs of each trial and service, and how many trials can run at once."""

    served_cpus: float
    own_cpus: float
    gpus: float
    scorer_cpus: float
    slots: int

    def of(self, config: TrajectoryConfig) -> dict[str, float]:
        return {"CPU": self.served_cpus if config.learner.method.served else self.own_cpus, "GPU": self.gpus}


def demand(resources: ResourcesSection, todo: Sequence[TrajectoryConfig], available: Mapping[str, float]) -> Demand:
    """Share out `available` ("CPU", "GPU") among scorers and trials.

    Scorers together reserve half of the CPUs when some trial's work is theirs, and nothing otherwise.

    Raises:
        ConfigError: one trial alone asks for more than there is.
    """
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    served = any(t.learner.method.served for t in todo)
    scorer = max(1, int(cpus) // 2) / resources.scorers if served and cpus >= 2 else 0.0
    scorer = float(int(scorer)) if scorer >= 1 else round(scorer, 2)
    left = cpus - scorer * resources.scorers
    given = resources.trial.cpus
    own, light = given or 1.0, given or SERVED_CPUS
    needed = max(light if t.learner.method.served else own for t in todo)
    faults = []
    if needed > left:
        faults.append(
            f"resources.trial.cpus: a trial asks for {needed:g} CPUs; {left:g} of {cpus:g} are left for trials"
        )
    if resources.trial.gpus > gpus:
        faults.append(f"resources.trial.gpus: a trial asks for {resources.trial.gpus:g} GPUs; there are {gpus:g}")
    if faults:
        raise ConfigError(faults)
    least = min(light if t.learner.method.served else own for t in todo)
    slots = left / least
    if resources.trial.gpus:
        slots = min(slots, gpus / resources.trial.gpus)
    return Demand(light, own, resources.trial.gpus, scorer, max(1, int(slots)))


def this_machine(cpus: int | None) -> dict[str, float]:
    """What a local run has: the processors this process may use (or as many as it was told), and visible GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        count = len(glob.glob("/dev/nvidia[0-9]*"))
    else:
        count = len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return {"CPU": float(cpus or os.cpu_count() or 1), "GPU": float(count)}
