"""Things that are made once, at first use, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Kept:
    """`get(key, make)` makes each key's value once; whoever asks meanwhile waits. A failure is not kept."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            mine = key not in self._made
            future = self._made.setdefault(key, Future())
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                self.forget(key)
                future.set_exception(error)
        return future.result()

    def forget(self, key: Hashable) -> None:
        """Make the value again when it is asked for."""
        with self._lock:
            self._made.pop(key, None)

    def peek(self, key: Hashable) -> Any:
        """The value, or None where it is not made yet."""
        with self._lock:
            future = self._made.get(key)
        return future.result() if future is not None and future.done() else None
