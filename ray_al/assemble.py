"""From a checked configuration to a trajectory that runs: the same in one process and in a trial on a cluster."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_al.core.interfaces import Model, Neighbors, PoolScores
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool, SpaceReader
from ray_al.core.round import RoundRecord
from ray_al.core.trajectory import Trajectory, run_trajectory
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.graphs import StoredGraphs
from ray_al.data.materialize import dataset_artifact, open_array, space_artifact
from ray_al.experiment import Sweep, TrajectoryConfig
from ray_al.methods import build
from ray_al.services.neighbor_service import NeighborService
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.scores import LinearScores, ModelScores
from ray_al.storage import Storage


@dataclass(frozen=True)
class DataKeys:
    """Where a dataset's arrays lie on storage: artifact names, by which any node can load them."""

    artifact: str  # labels
    spaces: Mapping[str, str]  # space -> artifact with pool.npy and test.npy
    size: int
    test_size: int
    classes: int


def materialize(sweep: Sweep, store: ArtifactStore, trajectories: Sequence[TrajectoryConfig]) -> dict[int, DataKeys]:
    """Build what is missing of the arrays and spaces that `trajectories` read, and name it, by dataset position."""
    keys = {}
    for position in sorted({t.dataset for t in trajectories}):
        dataset, spaces = sweep.datasets[position], sweep.spaces[position]
        used = {s for t in trajectories if t.dataset == position for s in t.spaces}
        artifact = dataset_artifact(store, dataset)
        found = {s: space_artifact(store, dataset, spaces[s], spaces).path.name for s in sorted(used)}
        sizes = len(dataset.pool_labels), len(dataset.test_labels)
        keys[position] = DataKeys(artifact.path.name, found, *sizes, dataset.classes)
    return keys


def assemble(
    config: TrajectoryConfig,
    keys: DataKeys,
    reader: SpaceReader,
    labels: tuple[np.ndarray, np.ndarray],
    scorer: Any,
    neighbors: Neighbors | None,
) -> Trajectory:
    """Wire a trajectory. `scorer` is a `PoolScorer` or a client with its methods; `labels` are (pool, test)."""
    default = next((s for s in config.spaces if s != "images"), config.spaces[0])  # distances need flat rows

    def scores_of(model: Model | None) -> PoolScores:
        head = getattr(model, "linear", None)
        if model is None or head is not None:
            return LinearScores(scorer, head, head.space if head else default)
        return ModelScores(model, scorer, default, "embedding" in config.learner.method.heads)

    return Trajectory(
        strategy=build("strategy", config.strategy.name, config.strategy.values),
        learner=build("learner", config.learner.name, config.learner.values, service=scorer),
        protocol=config.protocol,
        seed=config.seed,
        pool=Pool(keys.size, keys.test_size, keys.classes, reader, config.spaces),
        oracle=TruthOracle(labels[0]),
        test_labels=labels[1],
        scores_of=scores_of,
        neighbors=neighbors,
    )


class LocalReader:
    """Reads spaces of one dataset from the artifact store, memory-mapped, in this process."""

    def __init__(self, store: ArtifactStore, keys: DataKeys) -> None:
        self._store, self._keys = store, keys
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    def read(self, space: str, split: str) -> np.ndarray:
        if (space, split) not in self._arrays:
            artifact = self._store.open(space_key(self._keys, space))
            self._arrays[space, split] = open_array(artifact, split)
        return self._arrays[space, split]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        artifact = self._store.open(self._keys.artifact)
        return open_array(artifact, "pool_labels"), open_array(artifact, "test_labels")


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
) -> Iterator[RoundRecord]:
    """Run one trajectory in this process, without Ray. The records equal those of a run on a cluster."""
    store = ArtifactStore(storage)
    keys = materialize(sweep, store, [config])[config.dataset]
    reader = LocalReader(store, keys)
    neighbors = NeighborService(reader, StoredGraphs(store, keys.spaces))
    trajectory = assemble(config, keys, reader, reader.labels(), PoolScorer(reader), neighbors)
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
