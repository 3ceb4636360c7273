"""The neighbor service: one answer however it is asked, stored graphs, shards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.graphs import StoredGraphs
from ray_al.kernels import neighbors as kernel
from ray_al.services.neighbor_service import NeighborService
from ray_al.storage import Storage
from tests.fakes import ArrayReader

NO_IDS = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def reader() -> ArrayReader:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 8))[rng.integers(0, 20, 900)] + 0.2 * rng.standard_normal((900, 8))
    return ArrayReader({("x", "pool"): x.astype(np.float16)})


def test_neighbors_of_items_are_rows_of_the_graph(reader: ArrayReader) -> None:
    service = NeighborService(reader)
    ids = np.array([5, 899, 5, 0])
    before = service.of("x", ids, 12)  # searched
    again = service.of("x", np.arange(900), 12)  # some looked up
    graph, distances = service.graph("x", 12)
    after = service.of("x", ids, 12)  # read in the graph
    assert before.dtype == np.int64
    assert np.array_equal(before, graph[ids])
    assert np.array_equal(again, graph)
    assert np.array_equal(after, graph[ids])
    assert (np.diff(distances, axis=1) >= 0).all()


def test_items_are_looked_up_from_many_threads(reader: ArrayReader) -> None:
    service, want = NeighborService(reader), NeighborService(reader).of("x", np.arange(900), 5)
    asked = [np.random.default_rng(seed).integers(0, 900, 40) for seed in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda ids: service.of("x", ids, 5), asked))
    assert all(np.array_equal(rows, want[ids]) for rows, ids in zip(found, asked, strict=True))


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_give_the_same_bits(reader: ArrayReader, shards: int) -> None:
    alone = NeighborService(reader)
    sharded = NeighborService(reader, shards=[NeighborService(reader) for _ in range(shards)])
    for a, b in zip(alone.graph("x", 7), sharded.graph("x", 7), strict=True):
        assert np.array_equal(a, b)
    queries = reader.read("x", "pool")[:200].astype(np.float32)
    exclude = np.arange(100)
    assert np.array_equal(alone.nearest("x", queries, exclude), sharded.nearest("x", queries, exclude))
    for index in ("hnsw", "ivf"):
        assert np.array_equal(*(service.of("x", np.arange(900), 10, index) for service in (alone, sharded)))


def test_graphs_are_built_once_and_stored(reader: ArrayReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    plain = kernel.graph_blocks
    monkeypatch.setattr(kernel, "graph_blocks", lambda *args: built.append(args[2]) or plain(*args))  # type: ignore[func-returns-value]

    def service() -> NeighborService:
        graphs = StoredGraphs(ArtifactStore(Storage.open(str(tmp_path))), {"x": "space-1", "y": "space-2"})
        return NeighborService(reader, graphs)

    first = service()
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(first.graph("x", 6))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids, distances = service().graph("x", 6)  # a process that started again
    assert built == [6]
    assert len(answers) == 4
    assert not ids.flags.writeable
    want = NeighborService(reader).graph("x", 6)
    for found in [*answers, (ids, distances)]:
        for a, b in zip(found, want, strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
    assert built == [6, 6]  # the one without a store
    service().graph("x", 6, "ivf")
    service().graph("x", 5)
    assert built == [6, 6, 6, 5]


def test_a_failed_build_is_tried_again(reader: ArrayReader) -> None:
    service = NeighborService(ArrayReader({("bad", "pool"): np.full((4, 2), np.nan, np.float32)}))
    for _ in range(2):
        with pytest.raises(ValueError, match="x is nan"):
            service.graph("bad", 2)


def test_faults_name_the_value(reader: ArrayReader) -> None:
    service = NeighborService(reader)
    with pytest.raises(ValueError, match="k is 900"):
        service.graph("x", 900)
    with pytest.raises(ValueError, match="k is 900"):
        service.of("x", np.array([3]), 900)
    with pytest.raises(ValueError, match=r"ids holds id -1, outside 0\.\.899"):
        service.of("x", np.array([3, -1]), 5)
    with pytest.raises(ValueError, match="unknown index 'tree'; known: flat, hnsw, ivf"):
        service.of("x", np.array([3]), 5, "tree")
    with pytest.raises(ValueError, match=r"queries \(1, 3\) do not fit space 'x' \(900, 8\)"):
        service.nearest("x", np.zeros((1, 3), np.float32), NO_IDS)
