"""Calls that wait for the same thing, done together."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Call:
    request: Any
    work: Callable[[Sequence[Any]], Sequence[Any]]
    size: int
    answer: Any = None
    error: BaseException | None = None
    done: bool = False
    asked: float = field(default_factory=time.monotonic)


@dataclass
class Fuser:
    """Runs one batch at a time; of the keys with waiting calls, the one that has waited longest is next.

    No thread of its own: of those that wait, one runs the next batch, for all of them.
    """

    most: int = 64  # calls of a batch
    observe: Callable[[list[float], int], None] | None = None  # told how long a batch's calls waited, and its bytes
    _waiting: OrderedDict[Hashable, list[_Call]] = field(default_factory=OrderedDict)
    _busy: bool = False
    _turn: threading.Condition = field(default_factory=threading.Condition)

    def __call__(
        self, key: Hashable, request: Any, work: Callable[[Sequence[Any]], Sequence[Any]], size: int = 0
    ) -> Any:
        """The answer to `request` of work(requests), whose requests are those that wait under the same key.

        `size` is what a batch reads, in bytes. When a batch of several fails, each of its calls is tried alone, so that
        none fails for another's fault.
        """
        call = _Call(request, work, size)
        with self._turn:
            self._waiting.setdefault(key, []).append(call)
            while not call.done:
                if self._busy:
                    self._turn.wait()
                    continue
                batch = self._next()
                self._busy = True
                self._turn.release()
                try:
                    if self.observe:
                        now = time.monotonic()
                        self.observe([now - one.asked for one in batch], batch[0].size)
                    _run(batch)
                finally:
                    self._turn.acquire()
                    self._busy = False
                    self._turn.notify_all()
        if call.error is not None:
            raise call.error
        return call.answer

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
        if len(batch) == 1:
            batch[0].error = error
        else:
            for call in batch:
                _run([call])
    except BaseException as error:
        for call in batch:
            call.error = error
    for call in batch:
        call.done = True
