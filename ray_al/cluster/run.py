"""A run within its cluster: trajectories in Tune trials, shared services beside them, the ledger as the only memory."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from rich.console import Console

from ray_al.assemble import DataKeys, materialize
from ray_al.cluster.connect import Stop, cluster_nodes, machines
from ray_al.cluster.lease import Lease
from ray_al.cluster.members import read_members
from ray_al.cluster.placement import spread
from ray_al.cluster.prepare import TaskPreparer
from ray_al.cluster.progress import Progress
from ray_al.cluster.resources import Demand, Node, demand
from ray_al.cluster.services import start_services
from ray_al.cluster.sweep import Outcome
from ray_al.cluster.trial import Session, trial
from ray_al.cluster.turns import Cells, InTurn, Silent, Stopping
from ray_al.cluster.vae_training import VaeTraining
from ray_al.data.artifacts import ArtifactStore
from ray_al.experiment import Sweep, TrajectoryConfig
from ray_al.results.compaction import adopt, compact
from ray_al.results.dataset import index
from ray_al.space_facts import FILE as SPACES_FILE
from ray_al.space_facts import describe_spaces
from ray_al.storage import DamagedFile, Storage
from ray_al.sweep_file import ConfigError


@dataclass
class Run:
    """A run that holds its sweep's folder and, unless all is finished somewhere, a cluster."""

    sweep: Sweep
    console: Console
    stop: Stop
    there: Set[str]  # trajectories that the storage has finished, in this or another sweep
    coming: Sequence[Node] = ()  # machines that an autoscaler may bring
    lease: Lease | None = None  # that holds the folder, where no lock does
    handles: Sequence[Any] = ()  # keeps the services alive until the cluster is left, so that no trial misses them

    def go(self) -> Outcome:
        sweep, names = self.sweep, [t.name for t in self.sweep.trajectories]
        storage = Storage.open(sweep.storage)
        folder = storage.child(sweep.name)
        folder.write("sweep.json", json.dumps(sweep.raw, indent=1, default=str).encode())
        folder.write(SPACES_FILE, json.dumps(describe_spaces(sweep), indent=1).encode())
        elsewhere = self.there - index(folder).done
        adopted = adopt(storage, sweep.name, {t.id: t.name for t in sweep.trajectories if t.id in elsewhere})
        if adopted:
            self.console.print(
                f"{adopted} trajectories were done by other sweeps or earlier, and are taken over", highlight=False
            )
        at_start = index(folder)
        todo = [t for t in sweep.trajectories if t.id not in at_start.done]
        if todo and not ray.is_initialized():
            raise ConfigError(["what other sweeps had finished has gone away meanwhile: run the same command again"])
        progress = Progress(sweep, at_start, folder, self.console)
        clock, stopped = Clock(), False
        try:
            self.stop.check()  # a lease lost in a place where Python swallows exceptions
            if todo:
                self._trials(todo, progress, clock)
        except KeyboardInterrupt:
            stopped = True
        clock.stop()
        try:
            if self.lease and self.lease.lost.is_set():
                self.console.print("another run took this sweep over; this one has stopped", style="red")
            else:
                compact(folder, names)
        except KeyboardInterrupt:
            stopped = True
        except (OSError, DamagedFile) as error:
            text = f"results were not compacted: {error}; they stay in {folder.root}/ledger"
            self.console.print(text, style="red", markup=False)
        return Outcome(len(progress.done), len(names), progress.failed, stopped, clock.seconds, clock.cpu_seconds)

    def _trials(self, todo: Sequence[TrajectoryConfig], progress: Progress, clock: Clock) -> None:
        sweep, uri = self.sweep, _uri(self.sweep)
        want = demand(sweep.resources, todo, [*cluster_nodes(), *self.coming])
        datasets = _build_artifacts(sweep, todo, self.console, self.coming)
        neighbors = any(c.method.neighbor_index for t in todo for c in (t.strategy, t.learner))
        places = spread(machines(), sweep.resources.scorers, want.scorer_cpus, want.scorer_gpus)
        services, self.handles = start_services(uri, list(datasets.values()), places, neighbors)
        with progress:
            clock.start()
            session = Session(uri, sweep.name, datasets, services, sweep.share_fits, want.together)
            _fit(todo, session, want, sweep.resources.retries, progress, self.stop)
            progress.lose(todo)


class Clock:
    """Wall and processor seconds of this process between start and stop; both 0 without a start."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._started: tuple[float, float] | None = None

    def start(self) -> None:
        self._started = time.monotonic(), time.process_time()

    def stop(self) -> None:
        if self._started:
            self.seconds = time.monotonic() - self._started[0]
            self.cpu_seconds = time.process_time() - self._started[1]


def _fit(
    todo: Sequence[TrajectoryConfig], session: Session, want: Demand, retries: int, progress: Progress, stop: Stop
) -> None:  # fmt: skip
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(2 * want.slots + 4)
    with tempfile.TemporaryDirectory(prefix="ray-al-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, session=session),
                lambda config: tune.PlacementGroupFactory(
                    [want.of([TrajectoryConfig.from_json(m.trajectory) for m in read_members(config)])]
                ),
            ),
            tune_config=tune.TuneConfig(
                search_alg=Cells(todo, want, progress),
                scheduler=InTurn(),
                num_samples=len(todo) * (retries + 2),  # at most: once with others, then alone
                reuse_actors=True,
                trial_name_creator=lambda t: t.config["cell"]["id"],
                trial_dirname_creator=lambda t: t.config["cell"]["id"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[progress, Stopping(stop), Silent()],
            ),
        )
        tuner.fit()


def _uri(sweep: Sweep) -> str:
    """The storage as other processes can open it, whatever folder they run in."""
    return sweep.storage if "://" in sweep.storage else Storage.open(sweep.storage).root


def _build_artifacts(
    sweep: Sweep, todo: Sequence[TrajectoryConfig], console: Console, coming: Sequence[Node]
) -> dict[int, DataKeys]:
    started = time.monotonic()
    prepare = TaskPreparer(_uri(sweep), sweep.resources.trial.gpus)
    train = VaeTraining(_uri(sweep), console, any(node.get("GPU", 0) >= 1 for node in [*cluster_nodes(), *coming]))
    keys = materialize(sweep, ArtifactStore(Storage.open(sweep.storage)), todo, prepare, train)
    if time.monotonic() - started > 2:
        console.print(f"arrays and spaces on storage after {time.monotonic() - started:.0f} s", highlight=False)
    return keys
