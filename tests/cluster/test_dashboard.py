"""What of a local cluster starts beside the rest, and what does not start."""

from __future__ import annotations

import io
import queue
import time
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray._private import node as ray_node
from rich.console import Console

from ray_al.cluster.connect import _without_log_monitor, connected
from ray_al.cluster.dashboard import Dashboard


def _told(monkeypatch: pytest.MonkeyPatch, start: Any, url: str | None = None) -> str:
    """What is told of a dashboard that starts so."""
    monkeypatch.setattr(ray_node.Node, "start_api_server", start)
    told: queue.Queue[str] = queue.Queue()
    board = Dashboard(told.put)
    with board.starting():
        ray_node.Node.start_api_server(SimpleNamespace(webui_url=url), include_dashboard=True, raise_on_failure=True)
    assert ray_node.Node.start_api_server is start
    board.started(None)  # what `ray.init` knows: it did not wait
    found = told.get(timeout=10)
    board.leave()
    assert told.empty(), "told twice"
    return found


def test_its_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _told(monkeypatch, lambda node, **options: None, "127.0.0.1:8265") == "http://127.0.0.1:8265"


def test_a_dashboard_that_does_not_start_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(node: Any, **options: Any) -> None:
        raise RuntimeError("no port is free\nand more")

    assert _told(monkeypatch, start) == "off (no port is free)"


def test_another_ray_starts_it_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ray_node.Node, "start_api_server")
    told: list[str] = []
    board = Dashboard(told.append)
    with board.starting():
        pass
    board.started("127.0.0.1:8265")
    assert told == ["http://127.0.0.1:8265"]


def test_another_ray_starts_its_log_monitor_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with _without_log_monitor():
        assert ray_node.Node.start_log_monitor(SimpleNamespace()) is None
    monkeypatch.delattr(ray_node.Node, "start_log_monitor")
    with _without_log_monitor():
        assert not hasattr(ray_node.Node, "start_log_monitor")


@pytest.mark.slow
def test_it_answers_until_the_cluster_is_left() -> None:
    out = io.StringIO()
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with connected(None, 1, True, Console(file=out)) as leave:
        leave_later = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        assert not [p for p in leave_later if any("log_monitor" in part for part in p.cmdline())]
        deadline = time.monotonic() + 60
        while "Ray dashboard:" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.1)
        url = out.getvalue().split()[-1]
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url, timeout=30).status == 200
        leave()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)
    _, alive = psutil.wait_procs(leave_later, timeout=20)
    assert not alive
