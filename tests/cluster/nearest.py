"""A strategy of a user's, by Python path, that asks the neighbor index."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round


@dataclass(frozen=True)
class Nearest:
    """Asks for the nearest neighbors of random labeled items."""

    space: str | None = None
    neighbor_index = True

    def select(self, round: Round) -> Selection:
        assert round.neighbors is not None
        space = self.space or "pixels"
        # Rows that lie in shared memory are read-only; a private copy would not be.
        assert not round.pool.inputs(space).flags.writeable
        anchors = round.rng.permutation(round.labeled.ids)[: round.take]
        return ask_pool(round.neighbors.nearest(space, round.pool.inputs(space, anchors), round.labeled.ids))


class LightNearest(Nearest):
    """The same, in threads of a process that trajectories share."""

    light = True
