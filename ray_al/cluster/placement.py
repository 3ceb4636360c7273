"""Where services run: scorers spread one per GPU or machine, trials packed beside them. Imports no Ray.

Left to itself, Ray puts an actor where there is room: four scorers of two cores each may all start on one machine
of eight. So each is given a machine, from what the machines report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Node = Mapping[str, float]  # "CPU" and "GPU" of one machine


@dataclass(frozen=True)
class Place:
    """What one scorer asks of Ray. `node` is the id of the machine it should run on, if one was found."""

    cpus: float
    gpus: float = 0.0
    node: str | None = None


def spread(nodes: Mapping[str, Node], scorers: int, cpus: float, gpus: float = 0.0) -> tuple[Place, ...]:
    """A place for each scorer, on the machine with the fewest scorers so far that still has what one reserves.

    Of machines with equally many, the one with most left wins: most GPUs for scorers on GPUs, else fewest GPUs, which
    are the trials', then most CPUs, then the smaller id. With `gpus` = 1 that is one scorer per GPU. Scorers that fit
    nowhere have no machine named: Ray queues them until one has room, or the autoscaler brings one.
    """
    left = {node: dict(has) for node, has in nodes.items()}
    held = dict.fromkeys(left, 0)
    places = []
    for _ in range(scorers):
        able = [n for n, has in left.items() if has.get("CPU", 0.0) >= cpus and has.get("GPU", 0.0) >= gpus]
        if not able:
            places.append(Place(cpus, gpus))
            continue
        best = min(able, key=lambda n: (*_order(held[n], left[n], gpus), n))
        places.append(Place(cpus, gpus, best))
        held[best] += 1
        left[best] = {**left[best], "CPU": left[best].get("CPU", 0.0) - cpus, "GPU": left[best].get("GPU", 0.0) - gpus}
    return tuple(places)


def room_beside(nodes: Mapping[str, Node], places: Sequence[Place], cpus: float, gpus: float) -> bool:
    """Whether some machine has room for a trial beside the scorers that hold a place there."""
    taken = {node: [place for place in places if place.node == node] for node in nodes}
    return any(
        has.get("CPU", 0.0) - sum(p.cpus for p in taken[node]) >= cpus
        and has.get("GPU", 0.0) - sum(p.gpus for p in taken[node]) >= gpus
        for node, has in nodes.items()
    )


def _order(held: int, left: Node, gpus: float) -> tuple[float, float, float]:
    spare = left.get("GPU", 0.0)
    return float(held), -spare if gpus else spare, -left.get("CPU", 0.0)
