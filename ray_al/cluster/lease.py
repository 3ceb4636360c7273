"""One run of a sweep at a time: a file lock where the system has them, a lease on storage where not.

A lease is a small object `lease/<run>.json` that its run writes again every BEAT_SECONDS. A run writes its own before
it looks for others, and gives way to any that still changes; one that has not changed for STALE_SECONDS is taken over.
So of two runs at least one sees the other, if the storage lists what was written before (S3, GCS and Azure do), and
no clocks are compared. Two runs that start at the same moment may both give way.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

LOCK = ".lock"
LEASES = "lease"
BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


@contextlib.contextmanager
def only_run(folder: Storage, stale: tuple[str, ...] = ()) -> Iterator[Lease | None]:
    """Hold the sweep's folder against a second run at the same time, and yield the lease, if it takes one.

    A local lock ends with its process. A lease of a process that was killed is taken over: at once on the same
    machine, after STALE_SECONDS from another. `stale` are those that `refuse_second_run` has waited for.

    Raises:
        ConfigError: another run holds the folder.
    """
    path = folder.local
    if path is None:
        with _leased(folder, stale) as lease:
            yield lease
        return
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "a+") as lock:
        if not _flock(lock, folder):  # a file system without locks
            with _leased(folder, stale) as lease:
                yield lease
            return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield None


def refuse_second_run(folder: Storage) -> tuple[str, ...]:
    """Raise ConfigError if another run holds the folder; writes nothing.

    Returns the leases that have shown no sign of life: whoever takes them over says so in its own, or a run that was
    only cut off for a while would go on beside it.
    """
    if folder.local is not None:
        if not folder.exists(LOCK):
            return ()
        with open(folder.local / LOCK, "a+") as lock:
            if _flock(lock, folder):
                return ()
    return _stale(folder, "")


def _flock(lock: IO[str], folder: Storage) -> bool:
    """Whether the lock is held now; False where there are no locks. Raises ConfigError if another run holds it."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise _going_on(folder, f"process {lock.read().strip() or 'unknown'}") from None
    except (ImportError, OSError):
        return False
    return True


def _going_on(folder: Storage, holder: str) -> ConfigError:
    name = folder.root.rsplit("/", 1)[-1]
    return ConfigError([f"another run of sweep {name!r} is going on ({holder}); wait for it, or stop it"])


@contextlib.contextmanager
def _leased(folder: Storage, stale: tuple[str, ...]) -> Iterator[Lease]:
    lease = Lease(folder, took=stale)
    lease.start()
    try:
        lease.took = tuple(sorted({*stale, *_stale(folder, lease.name, stale)}))
        for name in lease.took:
            folder.delete(f"{LEASES}/{name}")
        yield lease
    finally:
        lease.stop()


@dataclass
class Lease:
    """This run's lease, kept up by a thread. `lost` is set when another run took it over."""

    folder: Storage
    name: str = field(default_factory=lambda: f"{uuid.uuid4().hex[:12]}.json")
    took: tuple[str, ...] = ()  # leases that this run found without a sign of life
    lost: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._beats = 0
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep_up, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        try:
            self._thread.join(timeout=60)
        finally:  # interrupted, too
            with contextlib.suppress(OSError):
                self.folder.delete(f"{LEASES}/{self.name}")

    def _write(self) -> None:
        self._beats += 1
        state = {**_this_process(), "beats": self._beats, "took": self.took}
        self.folder.write(f"{LEASES}/{self.name}", json.dumps(state).encode())

    def _keep_up(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # storage that is away for a while: the trials wait for it, too
                if any(self.name in state.get("took", ()) for state in _others(self.folder, self.name).values()):
                    self.lost.set()
                    os.kill(os.getpid(), signal.SIGINT)  # ends the run as Ctrl-C does
                    return
                self._write()


def _stale(folder: Storage, own: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Watch the leases beside one's own until each has changed or gone stale, and return the stale ones.

    Raises:
        ConfigError: one of them, and none of those `known` to be stale, changed: its run is alive.
    """
    first, started = _others(folder, own), time.monotonic()
    stale = {name for name, state in first.items() if name in known or _died_here(state)}
    while waiting := first.keys() - stale:
        if time.monotonic() - started > STALE_SECONDS:
            stale |= waiting
            break
        time.sleep(BEAT_SECONDS / 5)
        now = _others(folder, own)
        for name in waiting:
            if name not in now:
                stale.add(name)  # it ended
            elif now[name] != first[name]:
                raise _going_on(folder, f"process {now[name].get('pid')} on {now[name].get('host')}")
    return tuple(sorted(stale))


def _others(folder: Storage, own: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for name in folder.list(LEASES):
        if name != own and name.endswith(".json"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found[name] = json.loads(folder.read(f"{LEASES}/{name}"))
    return found


def _this_process() -> dict[str, Any]:
    return {"host": platform.node(), "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _died_here(state: Mapping[str, Any]) -> bool:
    """Whether a lease is of a process of this machine that is no more."""
    machine, pid = state.get("machine"), state.get("pid")
    return bool(machine) and machine == _machine() and isinstance(pid, int) and _started(pid) != state.get("started")


def _machine() -> str:
    """This boot of this machine and its table of processes; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks: numbers of processes are used again. Empty if there is none."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
