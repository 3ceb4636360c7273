"""Nearest neighbors in the spaces of one dataset; each space's index is built at first use and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ray_al.core.pool import SpaceReader
from ray_al.services.kept import Kept
from ray_al.services.row_memo import IndexShard, RowMemo

if TYPE_CHECKING:
    from ray_al.kernels.neighbors import Index
    from ray_al.services.propagation import Propagation

GraphBlocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


class GraphStore(Protocol):
    """Keeps kNN graphs on storage, so that they are built once for all runs."""

    def graph(self, space: str, k: int, index: str, unit: bool, rows: int, make: GraphBlocks) -> Any:
        """ids and distances (rows, k), memory-mapped; when there are none yet, what `make` yields is stored first."""
        ...


class NeighborService:
    """Implements `ray_al.core.interfaces.Neighbors`. Lost state (indexes, graphs) is rebuilt from the spaces.

    `graphs`: where kNN graphs are stored; without it they are kept in memory. `shards`: services or clients of the same
    class, on other machines too, each of which searches its share of the rows exactly, to the same bits; without them,
    and by approximate indexes, whose answers would differ, all is searched here.
    """

    def __init__(self, reader: SpaceReader, graphs: GraphStore | None = None, shards: Sequence[Any] = ()) -> None:
        self._reader, self._graphs, self._shards = reader, graphs, tuple(shards)
        self._kept = Kept()

    def nearest(self, space: str, queries: np.ndarray, exclude: np.ndarray, index: str = "flat") -> np.ndarray:
        from ray_al.kernels.neighbors import nearest

        rows = self._rows(space)
        if np.ndim(queries) != 2 or queries.shape[1] != rows.shape[1]:
            raise ValueError(f"queries {np.shape(queries)} do not fit space {space!r} {rows.shape}")
        return nearest(self._index(space, index), queries, exclude)

    def of(self, space: str, ids: np.ndarray, k: int, index: str = "flat") -> np.ndarray:
        """Items that were asked for before, by any trajectory, are looked up and not searched again."""
        from ray_al.kernels.blocks import check_ids

        ids = check_ids(ids, len(self._rows(space)), "ids")
        graph = self._kept.peek(("graph", space, k, index, False))
        if graph is not None:
            return np.asarray(graph[0][ids], np.int64)
        memo = self._kept.get(("memo", space, k, index), lambda: RowMemo(len(self._rows(space)), k))
        return memo.rows(ids, lambda missing: self._neighbors_of(space, missing, k, index))

    def graph(self, space: str, k: int, index: str = "flat") -> tuple[np.ndarray, np.ndarray]:
        return self._graph(space, k, index, unit=False)

    def propagate(
        self,
        space: str,
        k: int,
        ids: np.ndarray,
        labels: np.ndarray,
        classes: int,
        alpha: float = 0.99,
        gamma: float = 3.0,
        graph: str = "union",
        tol: float = 1e-6,
        index: str = "flat",
        iterations: int | None = None,
        balanced: bool = True,
    ) -> np.ndarray:
        """(N, C) float32 scores that labels of items `ids` spread over the kNN graph by cosine.

        Calls that wait at the same time are solved as one block, to the same bits; see
        `ray_al.kernels.label_propagation`, and for `gamma` and `graph` `ray_al.kernels.affinity`.
        """
        from ray_al.kernels.pseudo_labels import label_sources

        sources = label_sources(ids, labels, classes, alpha, tol, iterations, balanced)
        return self._propagation(space, k, gamma, graph, index).solve(sources)

    def pseudo_labels(
        self,
        space: str,
        k: int,
        ids: np.ndarray,
        labels: np.ndarray,
        classes: int,
        relative: bool = True,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N,) labels and (N,) certainties of `propagate` (same options): all that a learner needs of its scores."""
        from ray_al.kernels.pseudo_labels import pseudo_labels

        return pseudo_labels(self.propagate(space, k, ids, labels, classes, **options), ids, labels, relative)

    def label_probs(
        self, space: str, k: int, ids: np.ndarray, labels: np.ndarray, classes: int, gamma: float = 3.0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) and (M, C) float32 class probabilities of pool and test rows, from `propagate` (same options).

        A test row has the mean of its k nearest pool items' scores, weighted by similarity: no label and no other test
        row comes in (`ray_al.kernels.pseudo_labels.extend`).
        """
        from ray_al.kernels.pseudo_labels import extend, probabilities

        z = self.propagate(space, k, ids, labels, classes, gamma=gamma, **options)
        near, far = self._test_neighbors(space, k, options.get("index", "flat"))
        return probabilities(z), probabilities(extend(z, near, far, gamma))

    def jlp(
        self,
        space: str,
        k: int,
        labeled: np.ndarray,
        allowed: np.ndarray,
        count: int,
        seed: int,
        alpha: float = 0.99,
        gamma: float = 3.0,
        graph: str = "union",
        index: str = "flat",
    ) -> tuple[np.ndarray, np.ndarray]:
        """`count` of the items `allowed`, each the one that those labeled and picked reach least; see `kernels.jlp`."""
        return self._propagation(space, k, gamma, graph, index).jlp(labeled, allowed, count, seed, alpha)

    def search(
        self, space: str, queries: np.ndarray, k: int, exclude: np.ndarray, index: str, start: int, stop: int,
        unit: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """A shard's answer: ids, counted from `start`, and squared distances of the k nearest of rows [start, stop).

        `exclude` counts from `start`, too; see `ray_al.kernels.neighbors.Index.search`.
        """
        free = np.ones(stop - start, bool)
        free[exclude] = False
        return self._local(space, index, unit, start, stop).search(queries, k, free if len(exclude) else None)

    def _rows(self, space: str, unit: bool = False) -> Any:
        from ray_al.kernels.neighbors import UnitRows

        rows = self._reader.read(space, "pool")
        return UnitRows(rows) if unit else rows

    def _index(self, space: str, index: str, unit: bool = False) -> Index:
        from ray_al.kernels.neighbors import ShardedNeighbors

        count = len(self._rows(space))
        if not self._shards or index != "flat":
            return self._local(space, index, unit, 0, count)
        ends = [count * (i + 1) // len(self._shards) for i in range(len(self._shards))]
        ranges = zip(self._shards, [0, *ends[:-1]], ends, strict=True)
        return ShardedNeighbors([IndexShard(s, space, index, unit, a, b) for s, a, b in ranges if a < b])

    def _local(self, space: str, index: str, unit: bool, start: int, stop: int) -> Index:
        from ray_al.kernels.neighbors import INDEXES, UnitRows, build_index

        if index not in INDEXES:
            raise ValueError(f"unknown index {index!r}; known: {', '.join(INDEXES)}")

        def make() -> Index:
            rows = self._reader.read(space, "pool")[start:stop]
            return build_index(UnitRows(rows) if unit else rows, index)  # type: ignore[arg-type]

        index_: Index = self._kept.get(("index", space, index, unit, start, stop), make)
        return index_

    def _neighbors_of(self, space: str, ids: np.ndarray, k: int, index: str) -> np.ndarray:
        from ray_al.kernels.neighbors import neighbors_of

        return neighbors_of(self._index(space, index), self._rows(space), ids, k)[0]

    def _graph(self, space: str, k: int, index: str, unit: bool) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.neighbors import graph_blocks

        rows = self._rows(space, unit)
        if not 0 <= k < len(rows):
            raise ValueError(f"k is {k}, but it must lie in 0..{len(rows) - 1}")

        def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return graph_blocks(self._index(space, index, unit), rows, k)

        def make() -> tuple[np.ndarray, np.ndarray]:
            if self._graphs is None:
                parts = list(blocks())
                return np.concatenate([ids for ids, _ in parts]), np.concatenate([far for _, far in parts])
            ids, far = self._graphs.graph(space, k, index, unit, len(rows), blocks)
            return np.asarray(ids), np.asarray(far)  # plain arrays travel through shared memory, mapped ones do not

        graph: tuple[np.ndarray, np.ndarray] = self._kept.get(("graph", space, k, index, unit), make)
        return graph

    def _test_neighbors(self, space: str, k: int, index: str) -> tuple[np.ndarray, np.ndarray]:
        from ray_al.kernels.neighbors import UnitRows, nearest_rows

        def make() -> tuple[np.ndarray, np.ndarray]:
            return nearest_rows(self._index(space, index, unit=True), UnitRows(self._reader.read(space, "test")), k)

        found: tuple[np.ndarray, np.ndarray] = self._kept.get(("test", space, k, index), make)
        return found

    def _propagation(self, space: str, k: int, gamma: float, graph: str, index: str) -> Propagation:
        from ray_al.services.propagation import Propagation

        def make() -> Propagation:
            return Propagation(*self._graph(space, k, index, unit=True), gamma, graph)

        made: Propagation = self._kept.get(("propagation", space, k, gamma, graph, index), make)
        return made
