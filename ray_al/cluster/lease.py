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
from typing import Any

from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

LOCK = ".lock"
LEASES = "lease"
BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


@contextlib.contextmanager
def only_run(folder: Storage) -> Iterator[Lease | None]:
    """Hold the sweep's folder against a second run at the same time, and yield the lease, if it takes one.

    A local lock ends with its process. A lease of a process that was killed is taken over: at once on the same
    machine, after STALE_SECONDS from another.

    Raises:
        ConfigError: another run holds the folder.
    """
    path = folder.local
    if path is None:
        with _leased(folder) as lease:
            yield lease
        return
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "a+") as lock:
        locked = _flock(lock)
        if locked is False:
            lock.seek(0)
            raise _going_on(folder, f"process {lock.read().strip() or 'unknown'}")
        if locked is None:  # a file system without locks
            with _leased(folder) as lease:
                yield lease
            return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield None


def refuse_second_run(folder: Storage) -> None:
    """Raise ConfigError if another run holds the folder; writes nothing where no run was before."""
    if folder.local is None:
        _watch_others(folder, "")
    elif folder.exists(LOCK):
        with only_run(folder):
            pass


def _flock(lock: Any) -> bool | None:
    """Whether the lock was free and is held now; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _going_on(folder: Storage, holder: str) -> ConfigError:
    name = folder.root.rsplit("/", 1)[-1]
    return ConfigError([f"another run of sweep {name!r} is going on ({holder}); wait for it, or stop it"])


@contextlib.contextmanager
def _leased(folder: Storage) -> Iterator[Lease]:
    lease = Lease(folder)
    lease.start()
    try:
        lease.took = _watch_others(folder, lease.name)
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
        self._thread.join(timeout=60)
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


def _watch_others(folder: Storage, own: str) -> tuple[str, ...]:
    """Watch the leases beside one's own until each has changed or gone stale; delete and return the stale ones.

    Raises:
        ConfigError: one of them changed: its run is alive.
    """
    first, started = _others(folder, own), time.monotonic()
    stale = {name for name, state in first.items() if _died_here(state)}
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
    for name in stale:
        folder.delete(f"{LEASES}/{name}")
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
