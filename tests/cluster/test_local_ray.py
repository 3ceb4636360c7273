"""What of a local cluster comes once the run is under way, and what does not start."""

from __future__ import annotations

import io
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray._private import node as ray_node
from rich.console import Console

from ray_al.cluster import local_ray
from ray_al.cluster.connect import connected
from ray_al.cluster.local_ray import END_SECONDS, LocalRay

METHODS = ("start_log_monitor", "start_monitor", "start_api_server", "start_ray_processes")
Start = Callable[..., None]


class Node:
    """Notes what is started. Of Ray's it has the names of methods."""

    webui_url = "127.0.0.1:8265"

    def __init__(self) -> None:
        self.started: list[str] = []
        self.gcs_address = self.plasma_store_socket_name = "there"

    def start_log_monitor(self) -> None:
        self.started.append("log monitor")

    def start_monitor(self) -> None:
        self.started.append("monitor")

    def start_api_server(self, **options: Any) -> None:
        self.started.append("dashboard")

    def start_ray_processes(self) -> None:
        self.started.append("processes")


class Ray:
    """A Ray that is `Node` alone, and has what it tells in `told`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Node]) -> None:
        self.node, self.told = kind(), queue.Queue[str]()
        monkeypatch.setattr(ray_node, "Node", kind)
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(ray, "shutdown", lambda: self.node.started.append("end"))
        monkeypatch.setattr(
            ray._private.services, "wait_for_node", lambda *_, **options: self.node.started.append("wait")
        )
        monkeypatch.setattr(local_ray, "BOARD_SECONDS", 0.05)

    def _init(self, address: str, include_dashboard: bool) -> SimpleNamespace:
        for name, options in zip(METHODS, ({}, {}, {"include_dashboard": include_dashboard}, {}), strict=True):
            if start := getattr(self.node, name, None):
                start(**options)
        return SimpleNamespace(dashboard_url=self.node.webui_url if "dashboard" in self.node.started else None)

    def run(self, dashboard: bool = True) -> list[str]:
        """What is told."""
        cluster = LocalRay(dashboard, self.told.put)
        cluster.start()
        assert self.node.started[:2] == ["processes", "wait"]
        found = [self.told.get(timeout=10)]
        cluster.leave()
        cluster.leave()
        return found + [self.told.get() for _ in range(self.told.qsize())]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[Node]], Ray]]:
    before = [getattr(Node, name) for name in METHODS]
    yield lambda kind: Ray(monkeypatch, kind)
    assert [getattr(Node, name) for name in METHODS] == before


def test_the_dashboard_comes_later_and_its_address_is_told(begin: Callable[[type[Node]], Ray]) -> None:
    cluster = begin(Node)
    assert cluster.run() == ["http://127.0.0.1:8265"]
    assert cluster.node.started == ["processes", "wait", "monitor", "dashboard", "end", "end"]


def test_without_a_dashboard_nothing_starts_beside_the_run(begin: Callable[[type[Node]], Ray]) -> None:
    cluster = begin(Node)
    assert cluster.run(dashboard=False) == ["off"]
    assert cluster.node.started == ["processes", "wait", "end", "end"]


def test_a_run_that_ends_before_starts_none(
    begin: Callable[[type[Node]], Ray], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = begin(Node)
    monkeypatch.setattr(local_ray, "BOARD_SECONDS", 60)
    one = LocalRay(True, cluster.told.put)
    one.start()
    one.leave()
    assert cluster.node.started == ["processes", "wait", "end"]
    assert cluster.told.empty()
    assert one._thread is not None
    one._thread.join(1)
    assert not one._thread.is_alive(), "it waits for its time to come"


def test_a_start_that_is_under_way_is_ended(
    begin: Callable[[type[Node]], Ray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, up = tmp_path / "dashboard.py", threading.Event()
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(ray, "__file__", str(tmp_path / "__init__.py"))
    processes: list[subprocess.Popen[bytes]] = []

    class Slow(Node):
        def start_api_server(self, **options: Any) -> None:
            processes.append(subprocess.Popen([sys.executable, script]))
            while not Path(f"/proc/{processes[0].pid}/cmdline").read_bytes().count(b"dashboard.py"):
                time.sleep(0.01)
            up.set()
            raise RuntimeError(f"it ended with {processes[0].wait()}")

    cluster = begin(Slow)
    one = LocalRay(True, cluster.told.put)
    one.start()
    assert up.wait(10)
    started = time.monotonic()
    one.leave()
    assert time.monotonic() - started < END_SECONDS / 2
    assert processes[0].poll() == -signal.SIGKILL
    assert cluster.told.empty(), "that it did not start is nobody's concern any more"
    assert cluster.node.started[-1] == "end"


def test_ray_ends_whatever_hinders_the_end_of_its_dashboard(
    begin: Callable[[type[Node]], Ray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    cluster = begin(Node)
    one = LocalRay(True, cluster.told.put)
    one.start()
    monkeypatch.setattr(local_ray, "_kill_beside", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one.leave()
    assert cluster.node.started[-1] == "end"


def test_a_node_that_cannot_be_looked_for_is_waited_for_as_ever(
    begin: Callable[[type[Node]], Ray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*where: Any, **options: Any) -> None:
        raise TimeoutError

    cluster = begin(Node)
    monkeypatch.setattr(ray._private.services, "wait_for_node", late)
    one = LocalRay(False, cluster.told.put)
    one.start()
    assert cluster.node.started == ["processes"]
    one.leave()


def test_a_dashboard_that_does_not_start_ends_no_run(begin: Callable[[type[Node]], Ray]) -> None:
    class Full(Node):
        def start_api_server(self, **options: Any) -> None:
            raise RuntimeError("no port is free\nand more")

    assert begin(Full).run() == ["off (no port is free)"]


def test_another_ray_starts_as_ever(begin: Callable[[type[Node]], Ray], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(SimpleNamespace):
        pass

    cluster = begin(Node)
    monkeypatch.setattr(ray_node, "Node", Other)
    monkeypatch.setattr(ray, "init", lambda **options: SimpleNamespace(dashboard_url="127.0.0.1:8265"))
    one = LocalRay(True, cluster.told.put)
    one.start()
    assert cluster.told.get(timeout=10) == "http://127.0.0.1:8265"
    one.leave()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()[:4]
    except psutil.Error:  # it has ended
        return []


@pytest.mark.slow
def test_it_answers_until_the_cluster_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "BOARD_SECONDS", 0.5)
    out = io.StringIO()
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with connected(None, 1, True, Console(file=out)) as leave:
        deadline = time.monotonic() + 60
        while "Ray dashboard:" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.1)
        started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        scripts = [part for p in started for part in _command(p)]
        assert not [part for part in scripts if "log_monitor" in part]
        assert [part for part in scripts if part.endswith("monitor.py")], "the dashboard's status cards come from it"
        url = out.getvalue().split()[-1]
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url, timeout=30).status == 200
        leave()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
