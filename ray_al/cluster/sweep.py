"""Run a sweep on Ray: one Tune trial per trajectory, shared services beside them, the ledger as the only memory."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

# Tune reads these when it is imported: no files of its own (each trial writes its ledger and events), no handler that
# swallows Ctrl-C, no change of a trial's folder (own data may be given by relative path).
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from rich.console import Console

from ray_al.assemble import DataKeys, materialize
from ray_al.cluster.feature_store import NAMESPACE
from ray_al.cluster.progress import Progress
from ray_al.cluster.resources import Demand, demand
from ray_al.cluster.services import running_services
from ray_al.cluster.trial import Session, trial
from ray_al.data.artifacts import ArtifactStore
from ray_al.grid import Sweep, TrajectoryConfig
from ray_al.results.dataset import adopt, compact, index
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `failed` maps trajectory ids to reasons."""

    done: int
    total: int
    failed: dict[str, str]
    stopped: bool  # by Ctrl-C or SIGTERM
    seconds: float  # from the first trial's start to the last one's end
    driver_cpu_seconds: float  # of this process in that time


def run_sweep(
    sweep: Sweep, console: Console, address: str | None = None, cpus: int | None = None, dashboard: bool = True
) -> Outcome:
    """Run what is not done yet, and leave one Parquet dataset, whatever happens.

    Raises:
        ConfigError: the cluster lacks what the sweep asks for, or another run of this sweep is going on.
    """
    storage = Storage.open(sweep.storage)
    folder = storage.child(sweep.name)
    names = [t.name for t in sweep.trajectories]
    with _only_run(folder):
        folder.write("sweep.json", json.dumps(sweep.raw, indent=1).encode())
        adopted = adopt(
            storage, sweep.name, {t.id: t.name for t in sweep.trajectories if t.id not in index(folder).done}
        )
        if adopted:
            console.print(f"{adopted} trajectories were done by other sweeps and are taken over", highlight=False)
        at_start = index(folder)
        todo = [t for t in sweep.trajectories if t.id not in at_start.done]
        if not todo:
            compact(folder, names)
            return Outcome(len(names), len(names), {}, False, 0.0, 0.0)
        datasets = _build_artifacts(sweep, storage, console)
        progress = Progress(sweep.trajectories, at_start, folder, console)
        started, cpu_started, stopped = time.monotonic(), time.process_time(), False
        try:
            with _cluster(address, cpus, dashboard, console), _stop_on_sigterm():
                want = demand(sweep.resources, todo, ray.cluster_resources())
                neighbors = any(t.strategy.method.neighbors for t in todo)
                scorers = sweep.resources.scorers
                with (
                    running_services(_uri(sweep), datasets, scorers, want.scorer_cpus, neighbors) as services,
                    progress,
                ):
                    started, cpu_started = time.monotonic(), time.process_time()
                    session = Session(_uri(sweep), sweep.name, datasets, services)
                    _fit(todo, session, want, sweep.resources.retries, progress)
        except KeyboardInterrupt:
            stopped = True
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu_started
        try:
            compact(folder, names)
        except OSError as error:
            console.print(f"[red]results were not compacted[/]: {error}; they stay in {folder.root}/ledger")
        return Outcome(len(progress.done), len(names), progress.failed, stopped, seconds, cpu)


def _fit(
    todo: Sequence[TrajectoryConfig], session: Session, want: Demand, retries: int, progress: Progress
) -> None:  # fmt: skip
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(2 * want.slots + 4)
    cells = [{"id": t.id, "turn": turn, "trajectory": t.to_json()} for turn, t in enumerate(todo)]
    with tempfile.TemporaryDirectory(prefix="ray-al-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, session=session),
                lambda config: tune.PlacementGroupFactory(
                    [want.of(TrajectoryConfig.from_json(config["cell"]["trajectory"]))]
                ),
            ),
            param_space={"cell": tune.grid_search(cells)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=lambda t: t.config["cell"]["id"],
                trial_dirname_creator=lambda t: t.config["cell"]["id"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        )
        tuner.fit()


def _uri(sweep: Sweep) -> str:
    """The storage as other processes can open it, whatever folder they run in."""
    return sweep.storage if "://" in sweep.storage else Storage.open(sweep.storage).root


def _build_artifacts(sweep: Sweep, storage: Storage, console: Console) -> list[DataKeys]:
    started = time.monotonic()
    keys = materialize(sweep, ArtifactStore(storage))
    if time.monotonic() - started > 2:
        console.print(f"arrays and spaces on storage after {time.monotonic() - started:.0f} s", highlight=False)
    return keys


@contextlib.contextmanager
def _cluster(address: str | None, cpus: int | None, dashboard: bool, console: Console) -> Iterator[None]:
    """Connect to a running cluster, or start one of this machine's cores, reachable from this machine alone."""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}
    if address:
        context = ray.init(address=address, **options)
    else:
        # A local runtime that was killed does not come back: end soon instead of waiting a minute for it.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        context = ray.init(
            address="local", num_cpus=cpus, include_dashboard=dashboard, dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1", **options,
        )  # fmt: skip
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    url = getattr(context, "dashboard_url", None)
    console.print(f"Ray dashboard: {'http://' + url if url else 'off'}", highlight=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """A batch system's notice stops a run as cleanly as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _only_run(folder: Storage) -> Iterator[None]:
    """Hold the sweep's folder against a second run at the same time; the system lets go when this process ends."""
    path = folder.local
    if path is None:
        yield
        return
    import fcntl

    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            fault = f"another run of sweep {path.name!r} is going on (process {holder}); wait for it, or stop it"
            raise ConfigError([fault]) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
