"""Memory of the whole machine and of single processes, sampled while something runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

MB = 2**20


def available_mb() -> float:
    """What the machine could still give to processes: MemAvailable, which counts page cache as free."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def private_mb(process: psutil.Process) -> float:
    """Memory that would come back if this process ended (USS), MB."""
    return process.memory_full_info().uss / MB


def trial_processes(root: psutil.Process) -> list[psutil.Process]:
    """The Tune trials among the descendants of a `ray-al run`, as Ray titles them."""
    found = []
    for child in root.children(recursive=True):
        try:
            if child.name().startswith("ray::Im") or "ray::ImplicitFunc" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


class Watch:
    """While entered: the lowest available memory of the machine, and the private memory of chosen processes.

    `processes` is asked every `seconds_private`: reading the pages of a process costs milliseconds.
    """

    def __init__(
        self, processes: Callable[[], Iterable[psutil.Process]], seconds: float = 0.2, seconds_private: float = 1.0
    ) -> None:
        self._processes, self._seconds, self._seconds_private = processes, seconds, seconds_private
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.before_mb = available_mb()
        self.lowest_mb = self.before_mb
        self.private: list[list[float]] = []  # one list per look: MB of each process

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        look = time.monotonic()
        while not self._stop.wait(self._seconds):
            self.lowest_mb = min(self.lowest_mb, available_mb())
            if time.monotonic() >= look:
                self._look()
                look = time.monotonic() + self._seconds_private

    def _look(self) -> None:
        sizes = []
        for process in self._processes():
            try:
                sizes.append(private_mb(process))
            except psutil.Error:
                continue
        if sizes:
            self.private.append(sizes)

    def summary(self) -> dict[str, Any]:
        """Peak of the machine over its state before, and private memory of processes when all had most."""
        fullest = max(self.private, key=sum, default=[0.0])  # one number a process
        return {
            "machine_peak_mb": round(self.before_mb - self.lowest_mb, 1),
            "processes_at_once": len(fullest),
            "private_mb": round(sum(fullest), 1),
            "private_mb_largest": round(max(map(max, self.private), default=0.0), 1),
        }
