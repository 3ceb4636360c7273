"""Preparations of learners on the cluster: in a task that has a GPU, when the trials have one."""

from __future__ import annotations

from typing import Any

import ray

from ray_al.assemble import DataKeys, preparation_of, prepared
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.preparations import prepared_config
from ray_al.experiment import Choice
from ray_al.storage import Storage


class TaskPreparer:
    """Makes what learners need in Ray tasks, each with a whole GPU if trials have any share of one, else here."""

    def __init__(self, storage: str, gpus: float) -> None:
        self._storage, self._gpus = storage, max(1.0, gpus) if gpus else 0.0

    def __call__(self, store: ArtifactStore, keys: DataKeys, learner: Choice) -> tuple[str, str] | None:
        preparation = preparation_of(keys.classes, learner)
        if preparation is None or not self._gpus:
            return prepared(store, keys, learner)
        if not store.has(preparation.kind, prepared_config(preparation, keys.spaces[preparation.space])):
            ray.get(ray.remote(num_gpus=self._gpus)(_prepare).remote(self._storage, keys, learner))
        return prepared(store, keys, learner)  # which is there now


def _prepare(storage: str, keys: DataKeys, learner: Choice) -> Any:
    return prepared(ArtifactStore(Storage.open(storage)), keys, learner)
