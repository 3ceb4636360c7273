"""What a process may keep between calls, within bounds that all its shards share. It changes no answer."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from ray_al.kernels.budget import Budget
from ray_al.services.kept import Kept

CLUSTERS_BYTES = 2**26  # of clusterings, which strategies ask for again in later rounds
PROBS_BYTES = 2**30  # of probabilities that badge keeps, all selections together; beyond it they are made anew
KNOWN_BYTES = 2**29  # of distances to labeled items, kept from round to round


class KnownCoverages:
    """Distances to the centers of earlier calls, by what the centers were: the next round's begin with the same.

    A minimum over pairs does not depend on how it was reached, so this changes no result, only the work.
    """

    def __init__(self, limit: int) -> None:
        self._left, self._lock = limit, threading.Lock()
        self._kept: OrderedDict[tuple[Hashable, int, bytes], np.ndarray] = OrderedDict()  # longest unused first
        self._lengths: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)

    def longest(self, space: Hashable, centers: np.ndarray) -> tuple[np.ndarray | None, int]:
        """A copy of the distances to the longest known beginning of the centers, and its length."""
        with self._lock:
            lengths = sorted((n for n in self._lengths[space] if n <= len(centers)), reverse=True)
        for length in lengths:
            key = (space, length, _digest(centers[:length]))
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key].copy(), length
        return None, 0

    def keep(self, space: Hashable, begun: int, centers: np.ndarray, best: np.ndarray) -> None:
        """Keep the distances to these centers, in place of those to the first `begun` of them."""
        before, now = _digest(centers[:begun]), _digest(centers)
        with self._lock:
            self._drop((space, begun, before))
            self._drop((space, len(centers), now))
            self._kept[space, len(centers), now] = best
            self._lengths[space][len(centers)] += 1
            self._left -= best.nbytes
            while self._left < 0:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[Hashable, int, bytes]) -> None:
        if key in self._kept:
            self._left += self._kept.pop(key).nbytes
            lengths = self._lengths[key[0]]
            lengths[key[1]] -= 1
            if not lengths[key[1]]:
                del lengths[key[1]]


class KnownClusterings:
    """Clusterings made before: for a trajectory they are the same in every round with as many clusters."""

    def __init__(self, limit: int) -> None:
        self._limit, self._left, self._lock = limit, limit, threading.Lock()
        self._kept: OrderedDict[Hashable, np.ndarray] = OrderedDict()  # longest unused first
        self._under_way = Kept()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The clustering, read-only; who asks for one that is being made waits for it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made: np.ndarray = self._under_way.get(key, lambda: self._keep(key, make))
        return made

    def _keep(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        with self._lock:
            kept = self._kept.get(key)  # it was done a moment ago
        made = make() if kept is None else kept
        made.flags.writeable = False
        with self._lock:
            self._under_way.forget(key)
            if kept is None and made.nbytes <= self._limit:
                self._kept[key] = made
                self._left -= made.nbytes
            while self._left < 0:
                self._left += self._kept.popitem(last=False)[1].nbytes
        return made


def _digest(ids: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(ids, np.int64).tobytes()).digest()


@dataclass(frozen=True)
class Memory:
    """One process's bounds."""

    probs: Budget = field(default_factory=lambda: Budget(PROBS_BYTES))
    known: KnownCoverages = field(default_factory=lambda: KnownCoverages(KNOWN_BYTES))
    clusterings: KnownClusterings = field(default_factory=lambda: KnownClusterings(CLUSTERS_BYTES))
