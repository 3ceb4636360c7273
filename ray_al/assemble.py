"""From a checked configuration to a trajectory that runs: the same in one process and in a trial on a cluster."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_al.core.interfaces import Model, Neighbors, PoolScores
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool, SpaceReader
from ray_al.core.preparation import Preparation, PreparedLearner
from ray_al.core.round import RoundRecord
from ray_al.core.trajectory import Trajectory, run_trajectory
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.fits import StoredFits
from ray_al.data.graphs import StoredGraphs
from ray_al.data.materialize import dataset_artifact, open_array, space_artifact
from ray_al.data.preparations import prepared_artifact
from ray_al.data.vae_space import Train, train_quietly
from ray_al.experiment import Choice, Sweep, TrajectoryConfig
from ray_al.methods import build
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores, ModelScores
from ray_al.services.served_scores import ServedScores
from ray_al.storage import Storage


@dataclass(frozen=True)
class DataKeys:
    """Where a dataset's arrays lie on storage: artifact names, by which any node can load them."""

    artifact: str  # labels
    spaces: Mapping[str, str]  # space -> artifact with pool.npy and test.npy
    size: int
    test_size: int
    classes: int


def materialize(
    sweep: Sweep,
    store: ArtifactStore,
    trajectories: Sequence[TrajectoryConfig],
    prepare: Prepare | None = None,
    train: Train = train_quietly,
) -> dict[int, DataKeys]:
    """Build what is missing of the arrays and spaces that `trajectories` read, and name it, by dataset position.

    `prepare` makes what learners need before their first fit; it does so elsewhere, on a GPU for example. `train` does
    the same for auto-encoders whose codes are a space.
    """
    keys = {}
    for position in sorted({t.dataset for t in trajectories}):
        dataset, spaces = sweep.datasets[position], sweep.spaces[position]
        used = {s for t in trajectories if t.dataset == position for s in t.spaces}
        artifact = dataset_artifact(store, dataset)
        found = {s: space_artifact(store, dataset, spaces[s], spaces, train).path.name for s in sorted(used)}
        sizes = len(dataset.pool_labels), len(dataset.test_labels)
        made = DataKeys(artifact.path.name, found, *sizes, dataset.classes)
        learners = distinct_learners(t for t in trajectories if t.dataset == position)
        done = [(prepare or prepared)(store, made, learner) for learner in learners]
        keys[position] = replace(made, spaces={**found, **dict(pair for pair in done if pair)})
    return keys


Prepare = Callable[[ArtifactStore, DataKeys, Choice], tuple[str, str] | None]


def distinct_learners(trajectories: Iterable[TrajectoryConfig]) -> list[Choice]:
    return list({(t.learner.name, json.dumps(t.learner.values)): t.learner for t in trajectories}.values())


def preparation_of(classes: int, learner: Choice) -> Preparation | None:
    """What a learner needs before its first fit on a dataset of so many classes; mostly nothing."""
    made = build("learner", learner.name, learner.values)
    return made.preparation(classes) if isinstance(made, PreparedLearner) else None


def prepared(store: ArtifactStore, keys: DataKeys, learner: Choice) -> tuple[str, str] | None:
    """The name by which the learner reads its preparation, and the artifact's, which is built if it is missing."""
    preparation = preparation_of(keys.classes, learner)
    if preparation is None:
        return None
    return preparation.name, prepared_artifact(store, preparation, keys.spaces[preparation.space]).name


def assemble(
    config: TrajectoryConfig,
    keys: DataKeys,
    reader: SpaceReader,
    labels: tuple[np.ndarray, np.ndarray],
    scorer: Any,
    neighbors: Neighbors | None,
    store: ArtifactStore | None = None,
) -> Trajectory:
    """Wire a trajectory. `scorer` is a `PoolScorer` or a client with its methods; `labels` are (pool, test).

    With a store, a first fit that is worth it is shared with the other trajectories of the storage.
    """
    default = next((s for s in config.spaces if s != "images"), config.spaces[0])  # distances need flat rows

    def scores_of(model: Model | None) -> PoolScores:
        head = getattr(model, "linear", None)
        if model is None or head is not None:
            return LinearScores(scorer, head.space if head else default, head)
        if config.learner.method.served:  # by other services: what it returned is all there is
            return ServedScores(scorer, default, model)
        return ModelScores(scorer, default, model, "embedding" in config.learner.method.heads)

    learner = build(
        "learner",
        config.learner.name,
        config.learner.values,
        service=scorer,
        neighbors=neighbors,
        audit=lambda ids, guesses: float((labels[0][ids] == guesses).mean()),
    )
    pool = Pool(keys.size, keys.test_size, keys.classes, reader, config.spaces)
    share = None
    if store is not None and config.learner.method.share_fits:
        share = StoredFits(store, learner, pool, fit_identity(config, keys))
    return Trajectory(
        strategy=build("strategy", config.strategy.name, config.strategy.values),
        learner=learner,
        protocol=config.protocol,
        seed=config.seed,
        pool=pool,
        oracle=TruthOracle(labels[0]),
        test_labels=labels[1],
        scores_of=scores_of,
        neighbors=neighbors,
        share=share,
    )


def fit_identity(config: TrajectoryConfig, keys: DataKeys) -> dict[str, Any]:
    """What a fit depends on besides labels and stream: the data and the learner, spaces by what they hold."""
    learner = config.learner
    names = [learner.values.get("space") or config.spaces[0], *learner.method.reads]  # its own come first
    if preparation := preparation_of(keys.classes, learner):
        names.append(preparation.name)
    values = {key: value for key, value in learner.values.items() if key != "space"}
    return {
        "dataset": keys.artifact,
        "learner": {"name": learner.name, "values": values, "version": learner.method.version},
        "spaces": [space_key(keys, name) for name in names],
    }


class LocalReader:
    """Reads spaces of one dataset from the artifact store, memory-mapped, in this process."""

    def __init__(self, store: ArtifactStore, keys: DataKeys) -> None:
        self._store, self._keys = store, keys
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    def read(self, space: str, split: str) -> np.ndarray:
        return self._array(space_key(self._keys, space), split)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return self._array(self._keys.artifact, "pool_labels"), self._array(self._keys.artifact, "test_labels")

    def _array(self, artifact: str, name: str) -> np.ndarray:
        if (artifact, name) not in self._arrays:
            self._arrays[artifact, name] = open_array(self._store.open(artifact), name)
        return self._arrays[artifact, name]


def space_key(keys: DataKeys, space: str) -> str:
    """The artifact of a space; a ValueError tells a strategy that reads what it did not declare how to declare it."""
    if space not in keys.spaces:
        raise ValueError(
            f"space {space!r} is not loaded for this dataset (loaded: {', '.join(sorted(keys.spaces))}); "
            f"a method declares what it reads by an option `space` or a class attribute `reads`"
        )
    return keys.spaces[space]


def run_locally(
    sweep: Sweep,
    config: TrajectoryConfig,
    storage: Storage,
    done: Sequence[RoundRecord] = (),
    state: bytes | None = None,
    share_fits: bool = False,
) -> Iterator[RoundRecord]:
    """Run one trajectory in this process, without Ray. The records equal those of a run on a cluster.

    With `share_fits`, a first fit is taken from the storage, or left there for others.
    """
    store = ArtifactStore(storage)
    keys = materialize(sweep, store, [config])[config.dataset]
    reader = LocalReader(store, keys)
    neighbors = NeighborService(reader, StoredGraphs(store, keys.spaces))
    trajectory = assemble(
        config, keys, reader, reader.labels(), PoolScorer(reader), neighbors, store if share_fits else None
    )
    yield from run_trajectory(trajectory, done, state)


@functools.cache
def circumstances() -> dict[str, str]:
    """Host, device and library versions of this process, for the record."""
    names = ("ray-al", "numpy", "torch", "ray", "scikit-learn", "faiss-gpu", "faiss-cpu")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"host": platform.node(), "device": "cpu", "versions": json.dumps(versions)}
