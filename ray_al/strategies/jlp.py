"""jLP: the items that label propagation reaches least (Simeoni et al. 2019, arXiv 1911.08177, Eq. 12)."""

from __future__ import annotations

from dataclasses import dataclass

from ray_al.core.graph_options import check_graph
from ray_al.core.query import Selection, ask_pool
from ray_al.core.round import Round
from ray_al.core.seeds import subseed


@dataclass(frozen=True)
class Jlp:
    """Picks, one after another, the item of least g = (I - alpha W)^-1 delta(labeled + picked): its score.

    W is the normalized graph of `k` nearest neighbors by cosine, an edge weighing max(0, cos)^gamma; "union" joins both
    directions, "reciprocal" keeps mutual neighbors alone. Solves are converged, so the sequence is that of exact
    arithmetic; items that nothing reaches, and others that tie, are drawn at random.

    `space` None measures in the model's embedding; for linear models that is their input space. The graph of a shared
    space is built once, by the neighbor service, and that of an embedding in every round. `index`: "flat" is exact,
    "hnsw" and "ivf" approximate.
    """

    space: str | None = None
    k: int = 50
    graph: str = "union"
    alpha: float = 0.99
    gamma: float = 3.0
    index: str = "flat"

    def __post_init__(self) -> None:
        check_graph("jlp", self.k, self.graph, self.alpha, self.gamma, self.index)

    def select(self, round: Round) -> Selection:
        assert round.scores is not None
        space, k, seed = round.scores.shared(self.space), min(self.k, round.pool.size - 1), subseed(round.rng)
        call = round.labeled.ids, round.unlabeled, round.take, seed, self.alpha
        if space is not None:
            assert round.neighbors is not None
            picks, reached = round.neighbors.jlp(space, k, *call, self.gamma, self.graph, self.index)
            return ask_pool(picks, reached)
        from ray_al.kernels.affinity import affinity
        from ray_al.kernels.jlp import pick
        from ray_al.kernels.neighbors import unit_graph

        assert round.model is not None
        near = unit_graph(round.model.output("embedding"), k, self.index)
        return ask_pool(*pick(affinity(*near, self.gamma, self.graph), *call))
