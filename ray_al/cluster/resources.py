"""What trials and services ask of a cluster, and whether it has it. Imports no Ray."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ray_al.cluster.placement import Node, room_beside, spread
from ray_al.experiment import TrajectoryConfig
from ray_al.sweep_file import ConfigError, ResourcesSection

# Of a trial of one trajectory whose fits and scores are done by services: it mostly waits.
SERVED_CPUS = 0.25
_MOST = 64  # trajectories of one trial: what a process that dies takes down. `together` is no more


@dataclass(frozen=True)
class Demand:
    """CPUs and GPUs of each trial and service, and how many trials can run at once.

    Light trajectories (`TrajectoryConfig.light`) share trials, `together` of them running at a time in each; a trial
    gets `least` of them or more.
    """

    own_cpus: float
    served_cpus: float
    gpus: float
    scorer_cpus: float
    slots: int
    scorer_gpus: float = 0.0
    together: int = 1
    shared: int = 1  # trials of several at a time, were there no others
    least: int = 1

    def of(self, configs: Sequence[TrajectoryConfig]) -> dict[str, float]:
        """What a trial of these trajectories asks for."""
        waits = len(configs) == 1 and configs[0].learner.method.served
        return {"CPU": self.served_cpus if waits else self.own_cpus, "GPU": self.gpus}

    def share(self, left: int) -> int:
        """How many of `left` light trajectories the next trial gets: more at first, fewer towards the end."""
        most = _MOST if self.together > 1 else 1
        pieces = self.shared if self.shared == 1 else 2 * self.shared  # not one for each, so that all end together
        return min(left, most, max(self.least, -(-left // pieces)))


def node_faults(resources: ResourcesSection, nodes: Sequence[Node]) -> list[str]:
    """What one trial or scorer asks for that no machine has; `nodes` are those there or that an autoscaler brings."""
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
    faults = []
    for who, asks in (("trial", resources.trial), ("scorer", resources.scorer)):
        if (asks.cpus or 0) > most["CPU"]:
            faults.append(
                f"resources.{who}.cpus: a {who} asks for {asks.cpus:g} CPUs; the largest machine has {most['CPU']:g}"
            )
        if asks.gpus > most["GPU"]:
            faults.append(
                f"resources.{who}.gpus: a {who} asks for {asks.gpus:g} GPUs; there are {most['GPU']:g} on a machine"
            )
    return faults


def demand(resources: ResourcesSection, todo: Sequence[TrajectoryConfig], nodes: Sequence[Node]) -> Demand:
    """Share the machines out among scorers and trials.

    Unless `resources.scorer.cpus` says how many, scorers together reserve at most half of all CPUs, each at most half
    of the largest machine's, when some trial's work is theirs, and never so much that a trial has room nowhere: on a
    machine of one core, or when trials need every core, nothing.

    Raises:
        ConfigError: one trial alone asks for more than a machine has, or has left of it beside the scorers asked for.
    """
    if faults := node_faults(resources, nodes):
        raise ConfigError(faults)
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    given = resources.trial.cpus
    # A share of a GPU is meant for one trajectory.
    together = 1 if resources.trial.gpus else resources.trial.together
    want = Demand(
        own_cpus=given or 1.0,
        served_cpus=given or SERVED_CPUS,
        gpus=resources.trial.gpus,
        scorer_cpus=0.0,
        slots=1,
        scorer_gpus=resources.scorer.gpus,
        together=together,
    )
    light = sum(t.light for t in todo)
    asks = [want.of([t] * (min(light, together) if t.light else 1))["CPU"] for t in todo]
    scorer, scorer_gpus = resources.scorer.cpus or 0.0, resources.scorer.gpus
    if not scorer and any(t.learner.method.served for t in todo):
        scorer = float(int(min(largest / 2, cpus / 2 / resources.scorers)))
        while scorer and _crowded(nodes, resources, scorer, max(asks)):
            scorer -= 1.0
    if fault := _crowded(nodes, resources, scorer, max(asks)):
        raise ConfigError([fault])
    free = cpus - scorer * resources.scorers
    slots = free / min(asks)
    if resources.trial.gpus:
        slots = min(slots, (gpus - scorer_gpus * resources.scorers) / resources.trial.gpus)
    shared = max(1, int(free / want.own_cpus))
    least = max(1, min(together, -(-light // shared)))
    return replace(want, scorer_cpus=scorer, slots=max(1, int(slots)), shared=shared, least=least)


def _crowded(nodes: Sequence[Node], resources: ResourcesSection, cpus: float, trial_cpus: float) -> str:
    """Why the scorers, `cpus` each, or a trial beside them would wait forever; empty if they would not."""
    named, gpus = {str(position): node for position, node in enumerate(nodes)}, resources.scorer.gpus
    places = spread(named, resources.scorers, cpus, gpus)
    asks = f"{resources.scorers} scorers of {cpus:g} CPUs and {gpus:g} GPUs each"
    if room := [place for place in places if place.node is None]:
        return f"resources.scorers: {asks}; the machines have room for {len(places) - len(room)}"
    if not room_beside(named, places, trial_cpus, resources.trial.gpus):
        trial = f"{trial_cpus:g} CPUs and {resources.trial.gpus:g} GPUs"
        return f"resources.scorer: beside {asks}, no machine has room for a trial of {trial}"
    return ""


def this_machine(cpus: int | None = None) -> Node:
    """What a local run has: as many CPUs as it was told, or as this process may use; and the visible GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = len(glob.glob("/dev/nvidia[0-9]*"))
    else:
        gpus = len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return {"CPU": float(cpus or usable), "GPU": float(gpus)}
