"""Calls of several threads that wait at the same time, worked as one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]
Observe = Callable[[list[float], int], None]


@dataclass
class _Call:
    request: Any
    work: Work
    size: int
    answer: Any = None
    error: BaseException | None = None
    done: bool = False
    woken: threading.Event = field(default_factory=threading.Event)
    asked: float = field(default_factory=time.monotonic)


@dataclass
class Fuser:
    """Runs one batch at a time; of the keys with waiting calls, the one that has waited longest is next.

    No thread of its own: the first to ask leads until its own call is done, then one of those who came meanwhile.
    """

    observe: Observe | None = None  # told of every batch how long its calls had waited, in seconds, and their size
    most: int = 64  # calls of a batch
    _waiting: OrderedDict[Hashable, list[_Call]] = field(default_factory=OrderedDict)
    _busy: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, key: Hashable, request: Any, work: Work, size: int = 0) -> Any:
        """The answer to `request` of work(requests), called with all that wait under the same key.

        `size` is what a batch reads, in bytes. When a batch of several fails, each of its calls is tried alone, so that
        none fails for another's fault.
        """
        call = _Call(request, work, size)
        with self._lock:
            self._waiting.setdefault(key, []).append(call)
            leads, self._busy = not self._busy, True
        if not leads:
            call.woken.wait()
        if not call.done:  # the first, or woken to lead
            self._lead(call)
        if call.error is not None:
            raise call.error
        return call.answer

    def _lead(self, own: _Call) -> None:
        while not own.done:
            with self._lock:
                batch = self._next()
            if self.observe:
                now = time.monotonic()
                self.observe([now - call.asked for call in batch], batch[0].size)
            _run(batch)
            for call in batch:
                call.woken.set()
        with self._lock:
            heir = next(iter(self._waiting.values()))[0] if self._waiting else None
            self._busy = heir is not None
        if heir is not None:
            heir.woken.set()

    def _next(self) -> list[_Call]:
        key, calls = self._waiting.popitem(last=False)
        if len(calls) > self.most:
            self._waiting[key] = calls[self.most :]  # behind the keys that wait already
        return calls[: self.most]


def _run(batch: Sequence[_Call]) -> None:
    try:
        answers = batch[0].work([call.request for call in batch])
        for call, answer in zip(batch, answers, strict=True):
            call.answer = answer
    except BaseException as error:
        if len(batch) > 1 and isinstance(error, Exception):
            for call in batch:
                _run([call])
        else:
            for call in batch:
                call.error = error
    for call in batch:
        call.done = True
