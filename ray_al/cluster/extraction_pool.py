"""How many actors an extraction gets, and of what size."""

from __future__ import annotations

from collections.abc import Iterable

import ray
from rich.console import Console

from ray_al.cluster.autoscaler import coming_nodes
from ray_al.cluster.connect import cluster_nodes
from ray_al.cluster.extract import Pool
from ray_al.cluster.resources import Node
from ray_al.data.faults import DataError
from ray_al.sweep_file import ResourcesSection, TrialResources


def has_gpus() -> bool:
    """Whether the joined cluster has any, or its autoscaler is known to bring some."""
    return any(node.get("GPU", 0.0) > 0 for node in [*cluster_nodes(), *_coming(0)])


def choose_pool(
    actors: int | None, gpus: float | None, device: str, local: bool, batches: int, console: Console
) -> Pool:
    """By default one actor per GPU, or per core where there is none, and at most one per batch.

    More actors than a joined cluster has room for wait: it may grow by hand.

    Raises:
        DataError: no machine that is there or coming has what an actor asks for, or this one has too little for all.
    """
    each = gpus or 1.0 if device == "cuda" else 0.0
    there = _room(cluster_nodes(), each)
    # The machines of an autoscaler are all that it may ever start: but for the head, those there are among them.
    room = there if local else max(there, _room([*_heads(), *_coming(each)], each))
    what = f"{each:g} GPUs" if each else "a core"
    if not room:
        asks = "--gpus: an actor asks for" if gpus is not None else "--out was begun on GPUs: an actor asks for"
        where = "this machine does not have" if local else "no machine of the cluster has, and none is coming"
        raise DataError([f"{asks if each else '--address: an actor asks for'} {what}, which {where}"])
    if local and actors is not None and actors > room:
        raise DataError([f"--actors is {actors}; there is room for {room} with {what} each"])
    if not there:
        text = f"no machine has {what} for an actor yet; waiting for the autoscaler to bring one"
        console.print(text, markup=False, highlight=False)
    return Pool(actors or min(room, batches), cpus=0.0 if each else 1.0, gpus=each, device=device)


def _room(nodes: Iterable[Node], gpus: float) -> int:
    """Actors, by machine: two of 0.6 GPUs each do not fit on two halves of different ones."""
    kind, each = ("GPU", gpus) if gpus else ("CPU", 1.0)
    return sum(int(node.get(kind, 0.0) / each + 1e-9) for node in nodes)  # ten of 0.1, too, fit on one


def _coming(gpus: float) -> list[Node]:
    """What the autoscaler may start, for actors of that many GPUs."""
    return coming_nodes(ResourcesSection(trial=TrialResources(gpus=gpus)))


def _heads() -> list[Node]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [node for node in nodes if "node:__internal_head__" in node]
