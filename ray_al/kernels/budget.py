"""Bytes that many may take, and no more than there are."""

from __future__ import annotations

import threading


class Budget:
    """Bytes that may be held at a time."""

    def __init__(self, limit: int) -> None:
        self._left, self._lock = limit, threading.RLock()  # a finalizer may give back while it is held

    def take(self, size: int) -> bool:
        """Whether `size` bytes are left; they are then taken."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size
