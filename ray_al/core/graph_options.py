"""The options of whatever works on a graph of nearest neighbors, checked before anything heavy is imported."""

from __future__ import annotations

import math

GRAPHS = ("union", "reciprocal")
INDEXES = ("flat", "hnsw", "ivf")


def check_graph(owner: str, k: int, graph: str, alpha: float, gamma: float, index: str) -> None:
    """Raise a ValueError that names the owner, the value and the choices."""
    if k < 1:
        raise ValueError(f"{owner} needs k >= 1, not {k}")
    if graph not in GRAPHS:
        raise ValueError(f"{owner} takes graph: {' or '.join(GRAPHS)}, not {graph!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"{owner} needs alpha between 0 and 1, not {alpha}")
    if not 0 < gamma < math.inf:
        raise ValueError(f"{owner} needs gamma > 0, not {gamma}")
    if index not in INDEXES:
        raise ValueError(f"{owner} takes index: {', '.join(INDEXES[:-1])} or {INDEXES[-1]}, not {index!r}")
