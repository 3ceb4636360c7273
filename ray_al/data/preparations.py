"""What learners need before their first fit, as artifacts: made once, whatever the number of trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ray_al.core.preparation import Preparation
from ray_al.data.artifacts import Artifact, ArtifactStore
from ray_al.data.materialize import open_array


def prepared_config(preparation: Preparation, rows: str) -> dict[str, Any]:
    """The artifact's config: the preparation's, and the artifact whose pool it is made of."""
    return {**preparation.config, "rows": rows}


def prepared_artifact(store: ArtifactStore, preparation: Preparation, rows: str) -> Artifact:
    """The artifact of a preparation on the pool of the space whose artifact is `rows`; it holds `<array>.npy` files."""

    def build(folder: Path) -> None:
        pool = open_array(store.open(rows), "pool")
        for name, array in preparation.build(pool, dict(preparation.config)).items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    return store.get_or_build(preparation.kind, prepared_config(preparation, rows), build)
