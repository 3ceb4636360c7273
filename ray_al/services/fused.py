"""Calls of several threads that wait at the same time, worked as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass
class _Waiting(Generic[Q, R]):
    request: Q
    answer: list[R] = field(default_factory=list)
    error: BaseException | None = None
    woken: threading.Event = field(default_factory=threading.Event)


class Fused(Generic[Q, R]):
    """`ask(request)` gives that request's answer of work(requests), called with all that wait at the time.

    One call at a time: the first to ask leads, and works what has gathered; those who come meanwhile form the next
    batch, led by one of them. A batch that fails is worked again one by one, so that a fault is its owner's alone.
    """

    def __init__(self, work: Callable[[Sequence[Q]], Sequence[R]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._queue: list[_Waiting[Q, R]] = []
        self._busy = False

    def ask(self, request: Q) -> R:
        own: _Waiting[Q, R] = _Waiting(request)
        with self._lock:
            self._queue.append(own)
            leads, self._busy = not self._busy, True
        if not leads:
            own.woken.wait()
        if not own.answer and own.error is None:  # the first, or woken to lead
            self._lead()
        if own.error is not None:
            raise own.error
        return own.answer[0]

    def _lead(self) -> None:
        with self._lock:
            batch, self._queue = self._queue, []
        try:
            self._answer(batch)
        finally:
            with self._lock:
                heir = self._queue[0] if self._queue else None
                self._busy = heir is not None
            for waiting in [*batch, *([heir] if heir else [])]:
                waiting.woken.set()

    def _answer(self, batch: Sequence[_Waiting[Q, R]]) -> None:
        try:
            answers = self._work([waiting.request for waiting in batch])
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception):
                for waiting in batch:
                    self._answer([waiting])
                return
            for waiting in batch:
                waiting.error = error
            return
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.answer.append(answer)
