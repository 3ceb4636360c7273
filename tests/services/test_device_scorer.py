"""The scorer whose rows stay on a device, here the CPU: answers as the other scorer's, independent of their batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ray_al.core.linear import LinearCommittee, LinearHead
from ray_al.kernels.fuser import Fuser
from ray_al.services.device_scorer import DeviceScorer
from ray_al.services.pool_scorer import PoolScorer
from tests.fakes import ArrayReader

N, D, CLASSES = 3000, 24, 5


@pytest.fixture(scope="module")
def reader() -> ArrayReader:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)).astype(np.float32)
    return ArrayReader({("x", "pool"): x, ("x", "test"): x[:50].copy()})


def _head(seed: int) -> LinearHead:
    rng = np.random.default_rng(seed)
    return LinearHead("x", rng.standard_normal((CLASSES, D)).astype(np.float32), np.zeros(CLASSES, np.float32))


def _calls(seed: int) -> list[Any]:
    ids = np.random.default_rng(seed).permutation(N)[: 40 + seed]
    head = _head(seed)
    labels = np.concatenate([np.arange(CLASSES), ids[CLASSES:] % CLASSES])
    return [
        lambda s: s.linear_top(head, "margin", 30, ids, seed),
        lambda s: s.linear_top(head, "entropy", 10 + seed, ids, seed),
        lambda s: s.kcenter("x", 30, ids, ids, seed),
        lambda s: s.linear_badge(head, 30, ids, seed, "norm"),
        lambda s: (s.linear_probs(head, None, "pool"),),
        lambda s: (s.linear_probs(head, ids, "pool"), s.linear_probs(head, None, "test")),
        lambda s: (s.fit_linear("x", ids, labels, CLASSES, 1.0, 1e-7).weights,),
        lambda s: s.kcenter("x", 9, ids, ids, seed, np.arange(500)),
        lambda s: (s.kmeans("x", 4, seed),),
    ]


def test_answers_are_those_of_the_other_scorer(reader):
    device, plain = DeviceScorer(reader, "cpu"), PoolScorer(reader)
    for call in _calls(3):
        for one, other in zip(call(device), call(plain), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_committees(reader):
    device, plain = DeviceScorer(reader, "cpu"), PoolScorer(reader)
    committees = [LinearCommittee("x", tuple(_head(10 * i + seed) for seed in range(3))) for i in range(4)]
    ids, some = np.arange(40), np.arange(30, 500)
    calls: list[Any] = [lambda s, c=c: s.linear_top(c, "bald", 30, ids, 1) for c in committees]
    calls += [
        lambda s: s.linear_top(committees[0], "entropy", 30, ids, 1),
        lambda s: s.linear_top(committees[0], "bald", 30, ids, 1, some),
        lambda s: s.linear_badge(committees[0], 30, ids, 1, "norm"),
        lambda s: (s.linear_probs(committees[0], None, "pool"), s.linear_probs(committees[1], ids, "test")),
    ]
    with ThreadPoolExecutor(len(calls)) as threads:
        together = list(threads.map(lambda call: call(device), calls))
    for call, answer in zip(calls, together, strict=True):
        for one, other in zip(call(plain), answer, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


def test_an_answer_does_not_depend_on_its_batch(reader):
    calls = [call for seed in range(4) for call in _calls(seed)]
    alone = [call(DeviceScorer(reader, "cpu")) for call in calls]
    sizes: list[int] = []
    scorer = DeviceScorer(reader, "cpu", observe=lambda waited, read: sizes.append(len(waited)))
    with ThreadPoolExecutor(len(calls)) as threads:
        together = list(threads.map(lambda call: call(scorer), calls))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert sum(sizes) == 4 * 8
    assert max(sizes) > 1


def test_a_batch_is_shared_in_order_and_faults_stay_with_their_call():
    fuse, batches, hold = Fuser(most=3), [], threading.Event()

    def work(requests: Any) -> list[int]:
        hold.wait(10)
        batches.append(list(requests))
        if -1 in requests:
            raise ValueError("no -1")
        return [2 * request for request in requests]

    def ask(key: str, request: int) -> Any:
        try:
            return fuse(key, request, work)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(ask, "a", 0)
        while not fuse._busy:
            pass
        rest = []
        for key, request in [("a", 1), ("b", 2), ("a", -1), ("a", 3), ("a", 4)]:
            rest.append(threads.submit(ask, key, request))
            while sum(map(len, fuse._waiting.values())) < len(rest):
                pass
        hold.set()
        assert [first.result(), *(future.result() for future in rest)] == [0, 2, 4, "no -1", 6, 8]
    assert batches[0] == [0]
    assert batches[1:5] == [[1, -1, 3], [1], [-1], [3]]
    assert batches[5:] == [[2], [4]]


def test_a_watcher_that_fails_and_a_thread_that_is_interrupted_stop_no_other():
    def watch(waited: list[float], size: int) -> None:
        raise RuntimeError("metrics away")

    fuse, hold = Fuser(observe=watch), threading.Event()

    def work(requests: Any) -> list[Any]:
        hold.wait(10)
        if "stop" in requests:
            raise KeyboardInterrupt
        return list(requests)

    def ask(request: Any) -> Any:
        try:
            return fuse(None, request, work)
        except BaseException as error:
            return type(error)

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask, "stop")
        while not fuse._busy:
            pass
        second, third = threads.submit(ask, 2), threads.submit(ask, 3)
        while len(fuse._waiting.get(None, ())) < 2:
            pass
        waits = fuse._waiting[None][0]  # as Ctrl-C in a thread that waits
        fuse._withdraw(waits)
        waits.done = True
        waits.woken.set()
        hold.set()
        assert first.result(10) is KeyboardInterrupt
        assert {second.result(10), third.result(10)} == {None, 5 - waits.request}
    assert fuse(None, 7, work) == 7


def test_an_interrupt_ends_its_own_thread_and_tells_those_it_worked_for():
    fuse, started, hold = Fuser(), threading.Event(), threading.Event()

    def first(requests: Any) -> Any:
        started.set()
        hold.wait(10)
        return requests

    def interrupted(requests: Any) -> Any:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(4) as threads:
        other = threads.submit(fuse, "key", 0, first)
        started.wait(10)
        calls = []
        for place in range(3):
            calls.append(threads.submit(fuse, "key", place, interrupted))
            while len(fuse._waiting.get("key", ())) < len(calls):
                pass
        hold.set()
        errors = [call.exception(10) for call in calls]
    assert other.result() == 0
    assert isinstance(errors[0], KeyboardInterrupt)  # the leader's own
    assert [str(error) for error in errors[1:]] == ["the call was interrupted by another"] * 2
    assert fuse("key", 7, lambda requests: requests) == 7
