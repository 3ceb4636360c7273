"""A local Ray, without what `ray.init` waits for or starts in vain; its dashboard comes once the run is under way.

This takes the place of a few private methods of Ray's for the time of `ray.init`; what another Ray lacks of them it
starts as ever.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
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
_NODE_SECONDS = 10  # that are waited for the node with short pauses; then `ray.init` waits as ever


class LocalRay:
    """A cluster of this machine alone. `tell` is given its dashboard's address once it is up, or why it is not."""

    def __init__(self, dashboard: bool, tell: Callable[[str], None]) -> None:
        self._dashboard, self._tell = dashboard, tell
        self._thread: threading.Thread | None = None
        self._deferred: tuple[Any, Callable[[], None]] | None = None  # the node, and the start of its dashboard
        self._left = threading.Event()

    def start(self, **options: Any) -> None:
        """`ray.init` with these options."""
        with contextlib.ExitStack() as stack:
            # It sends workers' output to drivers, and none listens.
            stack.enter_context(_replaced("start_log_monitor", _nothing))
            stack.enter_context(_replaced("start_ray_processes", _start_and_wait))
            if stack.enter_context(_replaced("start_api_server", self._defer)):
                # The autoscaler's, which tells the dashboard what the cluster has.
                stack.enter_context(_replaced("start_monitor", _nothing))
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
        try:
            while self._thread:
                _kill_beside()  # which ends a start that is under way, too; Ray's own end of them takes a second
                self._thread.join(0.05)
                if not self._thread.is_alive() or time.monotonic() > deadline:
                    break
        finally:
            ray.shutdown()

    def _defer(self, original: Callable[..., None], node: Any, *args: Any, **options: Any) -> None:
        self._deferred = node, functools.partial(original, node, *args, **options)

    def _run(self, node: Any, start: Callable[[], None]) -> None:
        if self._left.wait(BOARD_SECONDS):
            return
        logging.getLogger("ray._private.services").setLevel(logging.CRITICAL)  # what went wrong is told here
        # Other threads may be importing: what a process of Ray's runs between fork and exec has been imported.
        try:
            if monitor := getattr(node, "start_monitor", None):
                monitor()
            start()
            told = f"http://{node.webui_url}" if node.webui_url else "off"
        except Exception as error:  # Ray raises no narrower one here, and the run needs no dashboard
            told = f"off ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
        if not self._left.is_set():
            self._tell(told)
        self._left.wait()  # on Linux the kernel ends a process of Ray's with the thread that started it


def _nothing(*args: Any, **options: Any) -> None:
    """Start no such process."""


def _start_and_wait(original: Callable[..., None], node: Any, *args: Any, **options: Any) -> None:
    """Start the node's processes, and look ten times a second whether they are up: `ray.init` looks once a second."""
    original(node, *args, **options)
    with contextlib.suppress(Exception):  # whatever another Ray has in its place; it waits itself, too
        ray._private.services.wait_for_node(node.gcs_address, node.plasma_store_socket_name, timeout=_NODE_SECONDS)


def _kill_beside() -> None:
    """End the dashboard and the monitor, as far as they have been started."""
    home = os.path.dirname(ray.__file__)
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it has ended
                scripts = [part for part in child.cmdline()[:4] if part.startswith(home)]
                if any(os.path.basename(script) in ("dashboard.py", "monitor.py") for script in scripts):
                    child.kill()


@contextlib.contextmanager
def _replaced(name: str, other: Callable[..., None]) -> Iterator[bool]:
    """Within, `other` is called with a node's method of this name and its arguments in its place; if there is one."""
    kind: Any = ray_node.Node
    original = getattr(kind, name, None)
    if original is None:
        yield False
        return
    setattr(kind, name, lambda *args, **options: other(original, *args, **options))
    try:
        yield True
    finally:
        setattr(kind, name, original)
