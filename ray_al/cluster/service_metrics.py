"""What services do, as metrics of Ray: in the dashboard, and for Prometheus."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter as Sums
from collections.abc import Iterator

from ray.util.metrics import Counter, Histogram

_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]
_SIZES = [1.0, 2, 4, 8, 16, 32, 64]


class CallMeter:
    """Calls of one service: how long each waited for a thread, and took."""

    def __init__(self, service: str) -> None:
        self._tags = {"service": service}
        self._waited = Histogram(
            "ray_al_call_queue_seconds", "Time from a trial's call to its start", _SECONDS, ("service", "method")
        )
        self._took = Histogram("ray_al_call_seconds", "Time a call took", _SECONDS, ("service", "method"))
        self.sums: Sums[str] = Sums()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, method: str, sent: float) -> Iterator[None]:
        """Around a call that was sent at `sent`, in seconds since the epoch by the sender's clock."""
        tags, started = {**self._tags, "method": method}, time.monotonic()
        waited = max(0.0, time.time() - sent)
        try:
            yield
        finally:
            took = time.monotonic() - started
            self._waited.observe(waited, tags)
            self._took.observe(took, tags)
            self.add(calls=1, queue_seconds=waited, call_seconds=took)

    def add(self, **amounts: float) -> None:
        with self._lock:
            self.sums.update(amounts)


class PassMeter(CallMeter):
    """Also passes over the pool: how many requests each served, how long they waited for it, bytes read."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self._served = Histogram("ray_al_pass_requests", "Requests that one pass served", _SIZES, ("service",))
        self._pass_waited = Histogram(
            "ray_al_pass_queue_seconds", "Time a request waited for its pass", _SECONDS, ("service",)
        )
        self._bytes = Counter("ray_al_pass_bytes_total", "Bytes of rows read", ("service",))

    def passed(self, waited: list[float], bytes_read: int) -> None:
        """A pass served requests that had waited these seconds."""
        self._served.observe(len(waited), self._tags)
        for seconds in waited:
            self._pass_waited.observe(seconds, self._tags)
        self._bytes.inc(bytes_read, self._tags)
        self.add(passes=1, requests=len(waited), bytes_read=bytes_read, pass_queue_seconds=sum(waited))
