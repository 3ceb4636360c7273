"""kNN graphs as artifacts: built once per space, memory-mapped by whoever reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import open_array

VERSION = 4  # raise it when the same rows would give another graph

Graph = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class StoredGraphs:
    """Implements `ray_al.services.neighbor_service.GraphStore` on an artifact store.

    `spaces`: of each space the name of the artifact that holds its rows (`DataKeys.spaces`).
    """

    store: ArtifactStore
    spaces: Mapping[str, str]

    def graph(
        self, space: str, k: int, index: str, unit: bool, rows: int, make: Callable[[], Iterator[Graph]]
    ) -> Graph:
        config = {"of": self.spaces[space], "k": k, "index": index, "unit": unit, "version": VERSION}
        artifact = self.store.get_or_build("graph", config, lambda folder: _write(folder, rows, k, make()))
        return open_array(artifact, "ids"), open_array(artifact, "distances")


def _write(folder: Path, rows: int, k: int, parts: Iterator[Graph]) -> None:
    """ids.npy and distances.npy (rows, k), written block by block. Plain writes: a full disk is an OSError."""
    dtypes = {"ids": np.dtype(np.int32 if rows < 2**31 else np.int64), "distances": np.dtype(np.float32)}
    with open(folder / "ids.npy", "wb") as ids, open(folder / "distances.npy", "wb") as distances:
        for out, dtype in zip((ids, distances), dtypes.values(), strict=True):
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, k)}
            np.lib.format.write_array_header_2_0(out, header)
        for block in parts:
            for out, array, dtype in zip((ids, distances), block, dtypes.values(), strict=True):
                out.write(np.ascontiguousarray(array, dtype).tobytes())
