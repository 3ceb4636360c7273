"""Label propagation as a service: calls that wait together are one block, and nobody's answer or fault is another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from ray_al.kernels import label_propagation
from ray_al.kernels.fuser import Fuser
from ray_al.services.neighbor_service import NeighborService
from tests.fakes import ArrayReader


def test_what_waits_is_worked_as_one() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def work(requests: Sequence[int]) -> list[int]:
        batches.append(sorted(requests))
        gate.wait(10)
        return [10 * request for request in requests]

    fuse = Fuser()
    ask = partial(fuse, None, work=work)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(ask, 0)
        while not batches:
            time.sleep(0.001)
        others = [threads.submit(ask, i) for i in range(1, 9)]
        while len(fuse._waiting.get(None, ())) < 8:
            time.sleep(0.001)
        gate.set()
        assert first.result(10) == 0
        assert [other.result(10) for other in others] == [10 * i for i in range(1, 9)]
    assert batches == [[0], list(range(1, 9))]
    assert ask(3) == 30  # and it goes on


def test_a_fault_is_its_owners_alone() -> None:
    started, gate = threading.Event(), threading.Event()

    def work(requests: Sequence[int]) -> list[int]:
        started.set()
        gate.wait(10)
        if 3 in requests:
            raise ValueError("three")
        return list(requests)

    fuse = Fuser()
    ask = partial(fuse, None, work=work)
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(ask, 0)]
        started.wait(10)
        asked += [threads.submit(ask, i) for i in range(1, 6)]
        while len(fuse._waiting.get(None, ())) < 5:
            time.sleep(0.001)
        gate.set()
        for i, answer in enumerate(asked):
            if i == 3:
                with pytest.raises(ValueError, match="three"):
                    answer.result(10)
            else:
                assert answer.result(10) == i


def test_trajectories_that_propagate_at_once_get_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 800)
    x = rng.standard_normal((5, 10))[truth] + 0.3 * rng.standard_normal((800, 10))
    service = NeighborService(ArrayReader({("x", "pool"): x.astype(np.float16)}))
    calls: list[dict[str, Any]] = []
    for seed in range(12):
        ids = np.random.default_rng(seed).permutation(800)[:20]
        calls.append({"ids": ids, "labels": truth[ids], "classes": 5, "alpha": 0.9 + 0.005 * seed})
    alone = [service.propagate("x", 8, **call) for call in calls]
    sizes = []
    plain = label_propagation.solve

    def slow(weights: Any, requests: Any) -> Any:
        sizes.append(len(requests))
        time.sleep(0.05)  # long enough for the others to gather
        return plain(weights, requests)

    monkeypatch.setattr(label_propagation, "solve", slow)
    fresh = NeighborService(service._reader)
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda call: fresh.propagate("x", 8, **call), calls))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert sum(sizes) == 12
    assert len(sizes) < 12
    labels, sure = fresh.pseudo_labels("x", 8, **calls[0])
    assert (labels == truth).mean() > 0.9
    assert (labels[calls[0]["ids"]] == calls[0]["labels"]).all()
    assert ((sure >= 0) & (sure <= 1)).all()
