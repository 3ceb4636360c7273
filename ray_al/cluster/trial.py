"""The trial: trajectories, from where their ledgers stand to their ends. Imports neither torch nor scikit-learn."""

from __future__ import annotations

import ctypes
import functools
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from ray_al.assemble import DataKeys, assemble, circumstances
from ray_al.cluster.feature_store import actor
from ray_al.cluster.members import Event, Member, read_members, report
from ray_al.cluster.services import Services
from ray_al.core.interfaces import StatefulLearner
from ray_al.core.round import RoundRecord
from ray_al.core.trajectory import run_trajectory
from ray_al.core.whereabouts import told
from ray_al.data.artifacts import ArtifactStore
from ray_al.experiment import TrajectoryConfig
from ray_al.results.epochs import write_epochs
from ray_al.results.ledger import Ledger
from ray_al.results.tensorboard import EventWriter, write_events, write_scalars
from ray_al.storage import Storage

_M_MMAP_THRESHOLD = -3  # of malloc.h
# A service that cannot be reached: its process or node died, or a link is cut. It comes back, here or elsewhere.
AWAY = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.GetTimeoutError,
    ray.exceptions.ReferenceCountingAssertionError,
)
AWAY_SECONDS = 900.0  # an outage may last that long; Ray itself finds out about a dead link after five to seven minutes
AWAY_TIMES = 3  # without a round in between: then it is this trial's own calls that end the service
# Faults that a second attempt would only repeat; whatever else goes wrong may be the machine's and is tried again.
FINAL_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ArithmeticError,
    AssertionError,
    ImportError,
)


@dataclass(frozen=True)
class Session:
    """What all trials of a run share."""

    storage: str
    sweep: str
    datasets: Mapping[int, DataKeys]
    services: Services
    share_fits: bool = True
    together: int = 1  # trajectories that run at a time in a trial


def trial(config: Mapping[str, Any], session: Session) -> None:
    """Tune's trainable: the trajectories of one trial, `session.together` of them at a time, each in a thread.

    Raises:
        RuntimeError: one of them raised, and may have left this process in any state; Tune ends it.
    """
    _keep_no_freed_memory()
    members = read_members(config)
    left, events = iter(members), queue.SimpleQueue[Event | BaseException | None]()

    def work() -> None:
        try:
            for member in left:  # the interpreter hands each to one thread
                if not follow(member, session, events.put):
                    break  # what it met may meet the next one, too
        except BaseException as error:
            events.put(error)
            for _ in left:  # no other thread begins one, either
                pass
        events.put(None)

    threads = min(session.together, len(members))
    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()  # no process stays for them when its trial is killed
    raised = report(events, threads, lambda some: tune.report({"events": [list(event) for event in some]}))
    if raised:
        raise RuntimeError(f"{raised} trajectories raised")


def follow(member: Member, session: Session, post: Callable[[Event], None]) -> bool:
    """Run a trajectory to its end, whatever that is, and say so. Returns whether nothing was raised."""
    reporter = Reporter(member.id, post)
    try:
        trajectory = TrajectoryConfig.from_json(member.trajectory)
        ledger = Ledger(Storage.open(session.storage).child(session.sweep), trajectory.name)
        try:
            _persist(trajectory, session, ledger, reporter, member.turn)
        except FINAL_ERRORS as error:
            message = told(error)
            ledger.fail(reporter.rounds, message, 0, _circumstances())
            reporter.tell(message, "failed")
        else:
            reporter.tell("", "done")
    except Exception as error:
        reporter.tell(told(error, brief=True), "raised")
        return False
    return True


class Reporter:
    """Where one trajectory stands."""

    def __init__(self, identity: str, post: Callable[[Event], None]) -> None:
        self._id, self._post = identity, post
        self.rounds = 0
        self.accuracy = float("nan")

    def tell(self, text: str, end: str = "") -> None:
        """Something that the user has to know; without an `end` the trajectory goes on."""
        self._post(Event(self._id, self.rounds, self.accuracy, end, text))

    def add(self, record: RoundRecord) -> None:
        self.rounds, self.accuracy = record.round + 1, record.accuracy
        self.tell("")


def _persist(config: TrajectoryConfig, session: Session, ledger: Ledger, progress: Reporter, turn: int) -> None:
    """Run a trajectory to its end. An outage of a service is no failure: wait, and go on from the ledger."""
    times = 0
    while True:
        before = progress.rounds
        try:
            return _run(config, session, ledger, progress, turn)
        except AWAY:
            times = 1 if progress.rounds > before else times + 1
            if times > AWAY_TIMES:
                raise
            _wait_for(session.services)
            ledger = Ledger(ledger.sweep, ledger.name)


def _wait_for(services: Services) -> None:
    """Wait until every service answers; raises what the last try did, if one does not for AWAY_SECONDS."""
    names = [name for name in (services.store, *services.scorers, services.neighbors) if name]
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            ray.get([actor(name).__ray_ready__.remote() for name in names], timeout=60)
            return
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _run(config: TrajectoryConfig, session: Session, ledger: Ledger, progress: Reporter, turn: int) -> None:
    if ledger.is_finished():  # by this trial, whose process died before its last report arrived
        progress.rounds = config.protocol.rounds
        return
    keys = session.datasets[config.dataset]
    follows = not config.protocol.budgets  # a one-shot draw hands nothing on to the next
    done, state = ledger.load(follows and config.learner.method.carries)
    for record in done:
        progress.rounds, progress.accuracy = record.round + 1, record.accuracy
    progress.tell(ledger.damage)
    reader = session.services.reader(keys)
    trajectory = assemble(
        config, keys, reader, reader.labels(),
        session.services.scorer(keys, turn), session.services.neighbor_client(keys),
        ArtifactStore(Storage.open(session.storage)) if session.share_fits else None,
    )  # fmt: skip
    folder, records = ledger.sweep.child("tensorboard").child(events_path(config)), list(done)
    events = EventWriter(folder.local, done) if folder.local else None
    for record in run_trajectory(trajectory, done, state):
        learner = trajectory.learner
        carried = learner.state() if follows and isinstance(learner, StatefulLearner) else None
        if epochs := getattr(learner, "history", None):  # before the round is on record, and never runs again
            write_epochs(ledger.sweep, ledger.name, record.round, epochs)
            write_scalars(folder.child(f"epochs-of-round{record.round}"), epochs)
        ledger.append(record, _circumstances(), carried)
        if events:
            events.add(record)
        records.append(record)
        progress.add(record)
    if events is None:  # before the trajectory counts as finished, so that none lacks its events
        write_events(folder, records)
    ledger.finish()
    if events:
        events.close()


def events_path(config: TrajectoryConfig) -> str:
    """Folder of a trajectory's TensorBoard events: its names, without what a path cannot hold, and its id's start.

    Long names are cut: file systems take 255 bytes, and the id tells those apart that begin alike.
    """
    name = config.name
    parts = (name.dataset, name.learner, name.protocol, name.strategy, f"seed{name.seed}-{config.id[:6]}")
    plain = ("".join(c if c.isalnum() or c in "+-_.=()" else "_" for c in part).lstrip(".") for part in parts)
    return "/".join(part.encode()[:100].decode(errors="ignore") for part in plain)


@functools.cache
def _keep_no_freed_memory() -> None:
    """Give large arrays back to the system when they are freed, where the C library is glibc.

    It keeps them for later by default, apart for every thread, and each trial of a process runs in a thread of its own:
    with 200 classes processes grew from 119 to 235 MB within 15 trials.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 18)


def _peak_mb() -> float:
    """Peak resident memory of this process so far, in MB (kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _circumstances() -> dict[str, Any]:
    """Asked anew for every round: torch, and with it a GPU, may have come into use since the last."""
    found: dict[str, Any] = {**circumstances(), "peak_mb": _peak_mb()}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            found["device"] = torch.cuda.get_device_name(0)
    return found
