"""Ray's dashboard, started beside the rest of a local cluster, for which `ray.init` alone waits seconds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import ray
from ray._private import node as ray_node

END_SECONDS = 10.0  # that leaving the cluster waits for a dashboard which is still starting


class Dashboard:
    """A local cluster's dashboard. `tell` is given its address once it is up, or why it is not."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._up, self._left = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A `ray.init` within starts the dashboard's process where it would, and does not wait for its answer."""
        kind: Any = ray_node.Node
        original = getattr(kind, "start_api_server", None)
        if original is None:  # a private name: without it the dashboard starts as Ray has it
            yield
            return

        def start(node: Any, **options: Any) -> None:
            ray._private.utils.get_dashboard_dependency_error()  # imports; see below
            self._thread = threading.Thread(target=self._run, args=(original, node, options), daemon=True)
            this, deadline = psutil.Process(), time.monotonic() + END_SECONDS
            before = len(this.children())
            self._thread.start()
            # What is imported while a process forks may leave a lock in the child that nobody opens.
            while len(this.children()) == before and not self._up.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)

        kind.start_api_server = start
        try:
            yield
        finally:
            kind.start_api_server = original

    def started(self, url: str | None) -> None:
        """`ray.init` is done, and knows this address of a dashboard that it waited for."""
        if self._thread is None:
            self._tell(f"http://{url}" if url else "off")

    def leave(self) -> None:
        """Leave the cluster, once Ray knows the dashboard's process."""
        if self._thread:
            self._up.wait(END_SECONDS)
        ray.shutdown()
        self._left.set()

    def _run(self, start: Callable[..., None], node: Any, options: dict[str, Any]) -> None:
        try:
            start(node, **options)
            told = f"http://{node.webui_url}" if node.webui_url else "off"
        except Exception as error:  # Ray raises no narrower one here, and the run needs no dashboard
            told = f"off ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
        self._up.set()
        self._tell(told)
        self._left.wait()  # the kernel ends a process of Ray's with the thread that started it
