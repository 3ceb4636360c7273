"""What runs in the workers of an extraction: read, decode and embed a batch of images."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from ray_al.backbones.backbone import Embedder, Loaded
from ray_al.backbones.preprocess import Preprocess, Undecodable
from ray_al.data.faults import DataError
from ray_al.data.items.listing import NoImageError, Part, Reader
from ray_al.data.names import item_name

_READ_ATTEMPTS = 3
_DECODED = pa.schema(
    {"split": pa.string(), "row": pa.int64(), "pixels": pa.large_binary(), "failed": pa.string(), "fault": pa.string()}
)
_EMBEDDED = pa.schema(
    {"split": pa.string(), "row": pa.int64(), "rows": pa.large_binary(), "failed": pa.string(), "fault": pa.string()}
)


@dataclass(frozen=True)
class Work:
    """All that a worker must know."""

    parts: Mapping[str, tuple[Part, ...]]
    loaded: Loaded  # without its network, which travels by itself
    batch: int
    device: str

    @property
    def preprocess(self) -> Preprocess:
        return self.loaded.preprocess


def decode(table: pa.Table, work: Work) -> pa.Table:
    """Batches of keys (a row each) -> pixels: the first stage, where another device embeds."""
    rows = []
    for row in table.to_pylist():
        answer = {**_place(row), "pixels": b"", "failed": "", "fault": ""}
        try:
            pixels, failed = _decoded(row, work)
            rows.append(answer | {"pixels": pixels.data, "failed": json.dumps(failed)})
        except DataError as error:
            rows.append(answer | {"fault": str(error)})
    return pa.Table.from_pylist(rows, _DECODED)


def _decoded(row: Mapping[str, Any], work: Work) -> tuple[np.ndarray, dict[int, str]]:
    """(batch, S, S, 3) uint8 pixels, and position in the batch -> why it could not be decoded.

    Every batch has its full size, zeros where an image is missing or broken: the embedding of an image must not depend
    on what else is in its batch.
    """
    side = work.preprocess.crop
    pixels = np.zeros((work.batch, side, side, 3), np.uint8)
    failed: dict[int, str] = {}
    for place, (part, key) in enumerate(zip(row["parts"], row["keys"], strict=True)):
        try:
            pixels[place] = work.preprocess.pixels(_read(work.parts[row["split"]][part], key))
        except (Undecodable, NoImageError) as error:
            failed[place] = str(error)
    return pixels, failed


@functools.lru_cache(maxsize=1024)
def _opened(part: Part) -> Reader:
    return part.open()


def _read(part: Part, key: bytes) -> bytes:
    """The encoded image. What cannot be read is no broken image, but a fault of the storage: DataError."""
    for attempt in range(_READ_ATTEMPTS):
        try:
            return _opened(part).read(key)
        except (OSError, KeyError, ValueError) as error:
            if attempt == _READ_ATTEMPTS - 1:
                name = part.prefix + item_name(key)
                raise DataError([f"{name} cannot be read: {type(error).__name__}: {error}"]) from error
            _opened.cache_clear()
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


class Embed:
    """Pixels -> embeddings, on this worker's device."""

    def __init__(self, work: Work, network: list[Any]) -> None:
        self._work, self._network = work, network
        self._embedder: Embedder | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = zip(table["pixels"], table.drop_columns("pixels").to_pylist(), strict=True)
        side = self._work.preprocess.crop
        shape = (self._work.batch, side, side, 3)
        return pa.Table.from_pylist(
            [
                {**row, "rows": b""}
                if row["fault"]
                else self.finish(row, np.frombuffer(pixels.as_buffer(), np.uint8).reshape(shape))
                for pixels, row in rows
            ],
            _EMBEDDED,
        )

    def finish(self, row: Mapping[str, Any], pixels: np.ndarray) -> dict[str, Any]:
        """The row's answer: embeddings as bytes, or the fault that ends the extraction."""
        answer = {**_place(row), "failed": row["failed"], "fault": "", "rows": b""}
        try:
            if self._embedder is None:
                network = ray.get(self._network[0]) if self._network else None
                self._embedder = self._work.loaded.embedder(self._work.device, network)
            return answer | {"rows": self._embedder.embed(pixels).data.tobytes()}
        except DataError as error:
            return answer | {"fault": str(error)}
        except Exception as error:  # the user's network may raise anything
            return answer | {"fault": f"the backbone failed: {type(error).__name__}: {error}"}


class DecodeAndEmbed:
    """Both stages in one worker, where the device is the processor that decodes, too."""

    def __init__(self, work: Work, network: list[Any]) -> None:
        self._work, self._embed = work, Embed(work, network)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._one(row) for row in table.to_pylist()], _EMBEDDED)

    def _one(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            pixels, failed = _decoded(row, self._work)
        except DataError as error:
            return {**_place(row), "rows": b"", "failed": "", "fault": str(error)}
        return self._embed.finish({**_place(row), "failed": json.dumps(failed)}, pixels)


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"split": row["split"], "row": row["row"]}
