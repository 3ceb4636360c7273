"""A local Ray, without what `ray.init` waits for or starts in vain; its dashboard comes once the run is under way.

This takes the place of a few private methods of Ray's for the time of `ray.init`; without them it starts as ever.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import ray
from ray._private import node as ray_node

# After Ray's start. The dashboard takes three seconds of processor time to start, for which services would wait.
BOARD_SECONDS = 5.0
END_SECONDS = 10.0  # that leaving the cluster waits for a dashboard which is still starting
_BESIDE = ("dashboard.py", "monitor.py")  # scripts of processes that are started beside the run


class LocalRay:
    """A cluster of this machine alone. `tell` is given its dashboard's address once it is up, or why it is not."""

    def __init__(self, dashboard: bool, tell: Callable[[str], None]) -> None:
        self._dashboard, self._tell = dashboard, tell
        self._thread: threading.Thread | None = None
        self._deferred: tuple[Callable[..., None], Any, dict[str, Any]] | None = None
        self._left = threading.Event()

    def start(self, **options: Any) -> None:
        """`ray.init` with these options."""
        with contextlib.ExitStack() as stack:
            for name, other in (
                ("start_log_monitor", _nothing),  # it sends workers' output to drivers, and none listens
                ("start_monitor", _nothing),  # the autoscaler's, which tells the dashboard what the cluster has
                ("start_api_server", self._defer),
                ("start_ray_processes", _start_and_wait),
            ):
                stack.enter_context(_replaced(ray_node.Node, name, other))
            context = ray.init(address="local", include_dashboard=self._dashboard, **options)
        if self._deferred and self._dashboard:
            self._thread = threading.Thread(target=self._run, args=self._deferred, daemon=True)
            self._thread.start()
        else:
            url = getattr(context, "dashboard_url", None)
            self._tell(f"http://{url}" if url else "off")

    def leave(self) -> None:
        self._left.set()
        deadline = time.monotonic() + END_SECONDS
        while self._thread and self._thread.is_alive() and time.monotonic() < deadline:
            _kill_beside()  # which ends a start that is under way, too; Ray's own end of them takes a second
            self._thread.join(0.05)
        ray.shutdown()

    def _defer(self, original: Callable[..., None], node: Any, **options: Any) -> None:
        self._deferred = original, node, options

    def _run(self, start: Callable[..., None], node: Any, options: dict[str, Any]) -> None:
        if self._left.wait(BOARD_SECONDS):
            return
        try:
            if monitor := getattr(node, "start_monitor", None):
                monitor()
            start(node, **options)
            told = f"http://{node.webui_url}" if node.webui_url else "off"
        except Exception as error:  # Ray raises no narrower one here, and the run needs no dashboard
            told = f"off ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
        if not self._left.is_set():
            self._tell(told)
        self._left.wait()  # the kernel ends a process of Ray's with the thread that started it


def _nothing(original: Callable[..., None], node: Any, **options: Any) -> None:
    """Start no such process."""


def _start_and_wait(original: Callable[..., None], node: Any) -> None:
    """Start the node's processes, and look ten times a second whether they are up: `ray.init` does it once."""
    original(node)
    with contextlib.suppress(AttributeError, TypeError, TimeoutError):  # another Ray's; it waits itself, too
        ray._private.services.wait_for_node(node.gcs_address, node.plasma_store_socket_name)


def _kill_beside() -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if any(part.endswith(_BESIDE) for part in child.cmdline()[:4]):
                child.kill()


@contextlib.contextmanager
def _replaced(kind: Any, name: str, other: Callable[..., None]) -> Iterator[None]:
    """Within, `other` is called with the method of this name and its arguments in its place; if there is one."""
    original = getattr(kind, name, None)
    if original is None:
        yield
        return
    setattr(kind, name, lambda *args, **options: other(original, *args, **options))
    try:
        yield
    finally:
        setattr(kind, name, original)
