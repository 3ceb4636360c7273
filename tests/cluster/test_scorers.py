"""A scorer's part in selections that others lead; no Ray is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ray_al.cluster import scorers
from ray_al.services.shard import CoverageLost, KCenterTask, Shard
from tests.fakes import ArrayReader

NONE = np.empty(0, np.int64)


def test_only_what_nobody_asks_for_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may take longer than a selection may lie idle."""
    now = [0.0]
    monkeypatch.setattr(scorers, "PassMeter", lambda name: SimpleNamespace(passed=None))
    monkeypatch.setattr(scorers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    host: Any = scorers.ScorerHost("store", "storage", {}, ["a", "b"], 0)
    x = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    host._shards["data"] = Shard(ArrayReader({("x", "pool"): x}), (0, 2))

    def begin() -> str:
        return host.begin("data", KCenterTask("x", np.arange(3), NONE, 0))

    used, idle = begin(), begin()
    coverage = host._coverages[used][0]
    cover = coverage.cover

    def slow(ids: np.ndarray) -> None:
        now[0] += 2 * scorers.IDLE_SECONDS
        begin()  # while this goes on
        cover(ids)

    coverage.cover = slow
    host.go_on(used, "cover", np.array([5]))
    begin()
    assert 5 not in host.go_on(used, "leaders", 2000).ids
    with pytest.raises(CoverageLost, match="for an hour"):
        host.go_on(idle, "leaders", 10)
    host.go_on(used, "close", True)
    with pytest.raises(CoverageLost):
        host.go_on(used, "leaders", 10)
    assert len(host._coverages) == 2
