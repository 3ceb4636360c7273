"""Calls of several threads that wait at the same time, worked as one."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]
Observe = Callable[[list[float], int], None]


@dataclass(eq=False)
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
        try:
            if not leads:
                call.woken.wait()
            if not call.done:  # the first, or woken to lead
                self._lead(call)
        except BaseException:  # Ctrl-C, in this thread: those who wait go on without it
            self._withdraw(call)
            raise
        if call.error is not None:
            raise call.error
        return call.answer

    def _lead(self, own: _Call) -> None:
        try:
            while not own.done:
                with self._lock:
                    batch = self._next()
                try:
                    self._tell(batch)
                    _run(batch)
                finally:
                    for call in batch:
                        if not call.done:
                            call.error, call.done = RuntimeError("the call was interrupted by another"), True
                        call.woken.set()
        finally:
            with self._lock:
                self._hand_over()

    def _tell(self, batch: Sequence[_Call]) -> None:
        if self.observe:
            now = time.monotonic()
            try:
                self.observe([now - call.asked for call in batch], batch[0].size)
            except Exception:  # a fault of what only watches
                logging.getLogger(__name__).exception("a batch could not be reported")

    def _hand_over(self) -> None:
        heir = next(iter(self._waiting.values()))[0] if self._waiting else None
        self._busy = heir is not None
        if heir is not None:
            heir.woken.set()

    def _withdraw(self, own: _Call) -> None:
        with self._lock:
            for key, calls in list(self._waiting.items()):
                if own in calls:
                    calls.remove(own)
                    if not calls:
                        del self._waiting[key]
                    if own.woken.is_set():  # it had been chosen to lead
                        self._hand_over()

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
    except Exception as error:
        if len(batch) > 1:
            for call in batch:
                _run([call])
        else:
            batch[0].error = error
    for call in batch:
        call.done = True
