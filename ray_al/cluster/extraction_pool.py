"""How many actors an extraction gets, and of what size."""

from __future__ import annotations

import ray

from ray_al.cluster.extract import Pool
from ray_al.data.faults import DataError


def has_gpus() -> bool:
    """Whether the connected cluster has any now."""
    return ray.cluster_resources().get("GPU", 0.0) > 0


def choose_pool(actors: int | None, gpus: float | None, device: str, local: bool) -> Pool:
    """By default one actor per GPU, or per core where there is none. A cluster that is joined may still grow.

    Raises:
        DataError: this machine lacks what is asked for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = gpus or 1.0 if device == "cuda" else 0.0
    if device == "cuda":
        # By machine: two actors of 0.6 GPUs each do not fit on two halves of different ones.
        room = int(sum(node.get("GPU", 0.0) // each for node in nodes))
    else:
        room = int(sum(node.get("CPU", 0.0) // 1 for node in nodes))
    if local and not room:
        raise DataError([f"--gpus: an actor asks for {each:g} GPUs, which this machine does not have"])
    if local and actors is not None and actors > room:
        what = f"{each:g} GPUs" if each else "a core"
        raise DataError([f"--actors is {actors}; there is room for {room} with {what} each"])
    return Pool(actors or max(1, room), cpus=0.0 if each else 1.0, gpus=each, device=device)
