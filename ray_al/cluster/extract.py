"""Images -> embeddings on Ray Data: batches of fixed composition through a pool of actors, in the order of rows."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from ray_al.backbones.backbone import Loaded
from ray_al.cluster.embed import DecodeAndEmbed, Embed, Work, decode
from ray_al.data.embeddings.assemble import undecodable
from ray_al.data.embeddings.shards import ShardFolder
from ray_al.data.faults import DataError
from ray_al.data.items.listing import Items, Listing, batch_table

_MAX_BATCHES = 64  # per block: what one actor takes at a time
_RETRIES = 3  # of a block whose actor died


@dataclass(frozen=True)
class Pool:
    """The actors: how many, and what each gets."""

    actors: int
    cpus: float = 1
    gpus: float = 0  # if any, tasks on other processors decode for them
    device: str = "cpu"  # as torch calls it


@dataclass(frozen=True)
class Progressed:
    """A whole shard is on the disk."""

    images: int
    failed: Mapping[str, str]  # name -> reason


def extract(
    listing: Listing, loaded: Loaded, folder: ShardFolder, batch: int, pool: Pool, strict: bool = False
) -> Iterator[Progressed]:
    """Compute the shards that are missing, one after the other. `folder.rows` is a multiple of `batch`.

    A connected Ray cluster is needed. The bytes depend neither on the number of actors nor on what was there before.

    Raises:
        DataError: images that cannot be read, numbers that cannot be kept, a network that fails; with `strict`, an
            image that cannot be decoded.
        OSError: actors that die again and again, a full disk.
    """
    todo = [
        (split, shard) for split, items in listing.splits.items() for shard in folder.missing(split, len(items))
    ]  # fmt: skip
    if not todo:
        return
    rows = _Rows(listing, loaded, batch, strict)
    pending = _results(listing, loaded, todo, folder.rows, batch, pool)
    try:
        for split, shard in todo:
            items = listing.splits[split]
            start, stop = shard * folder.rows, min((shard + 1) * folder.rows, len(items))
            values, failed = rows.collect(pending, split, start, stop)
            folder.write(split, shard, values, failed)
            names = items.names(failed)
            yield Progressed(stop - start, dict(zip(names, failed.values(), strict=True)))
    except ray.exceptions.RayError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        text = f"the extraction stopped: {reason.strip()}; shards so far are kept, the same command goes on"
        raise OSError(text) from error
    finally:
        pending.close()


class _Rows:
    """Puts batches together to shards, and looks at every number once."""

    def __init__(self, listing: Listing, loaded: Loaded, batch: int, strict: bool) -> None:
        self._listing, self._batch, self._strict = listing, batch, strict
        self._dtype = np.dtype(loaded.spec.dtype)

    def collect(
        self, pending: Iterator[dict[str, Any]], split: str, start: int, stop: int
    ) -> tuple[np.ndarray, dict[int, str]]:
        """(stop - start, D) rows of a shard, zeros for those in item -> reason."""
        values: list[np.ndarray] = []
        failed: dict[int, str] = {}
        for row in range(start, stop, self._batch):
            answer = next(pending)
            if (answer["split"], answer["row"]) != (split, row):
                raise AssertionError(f"batch {answer['split']} {answer['row']} came instead of {split} {row}")
            if answer["fault"]:
                raise DataError([answer["fault"]])
            broken = {row + int(place): reason for place, reason in json.loads(answer["failed"]).items()}
            block = np.frombuffer(answer["rows"], self._dtype).reshape(self._batch, -1)[: stop - row].copy()
            block[[item - row for item in broken]] = 0
            self._check(split, row, block)
            values.append(block)
            failed |= broken
        if failed and self._strict:
            item, reason = next(iter(failed.items()))
            raise undecodable(self._name(split, item), split, reason)
        return np.concatenate(values), failed

    def _check(self, split: str, row: int, block: np.ndarray) -> None:
        wrong = np.argwhere(~np.isfinite(block))
        if not len(wrong):
            return
        value = block[tuple(wrong[0])]
        hint = (
            "" if np.isnan(value) or self._dtype != np.float16 else "; float16 ends at 65504: --dtype float32 keeps it"
        )
        name = self._name(split, row + int(wrong[0][0]))
        raise DataError([f"the embedding of {name} ({split}) holds {value}{hint}"])

    def _name(self, split: str, item: int) -> str:
        return next(self._listing.splits[split].names([item]))


def _results(
    listing: Listing, loaded: Loaded, todo: list[tuple[str, int]], shard_rows: int, batch: int, pool: Pool
) -> Generator[dict[str, Any], None, None]:
    """The answers to all batches of the shards to do, in order."""
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    parts = {split: items.parts for split, items in listing.splits.items()}
    work = Work(parts, dataclasses.replace(loaded, network=None), batch, pool.device)
    # In a list, since Ray would replace a bare reference by its value.
    network = [ray.put(loaded.network)] if loaded.network is not None else []
    data: Any = ray.data.from_arrow(list(_blocks(listing.splits, todo, shard_rows, batch, pool.actors)))
    actors: dict[str, Any] = {
        "compute": ActorPoolStrategy(min_size=1, max_size=pool.actors, initial_size=pool.actors),
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus,
        "batch_size": 1,
        "batch_format": "pyarrow",
        # Without an end to it, an image that crashes its decoder would be tried for ever.
        "max_restarts": -1,
        "max_task_retries": _RETRIES,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray has no other way to bound the retries
        if pool.gpus:
            tasks = {key: actors[key] for key in ("batch_size", "batch_format")}
            data = data.map_batches(decode, fn_kwargs={"work": work}, num_cpus=1, **tasks)
            data = data.map_batches(Embed, fn_constructor_args=(work, network), **actors)
        else:
            data = data.map_batches(DecodeAndEmbed, fn_constructor_args=(work, network), **actors)
    for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        yield from block.to_pylist()


def _blocks(
    splits: Mapping[str, Items], todo: list[tuple[str, int]], shard_rows: int, batch: int, actors: int
) -> Iterator[Any]:
    """Tables of consecutive batches: small enough that every actor gets some, large enough for millions of rows."""
    total = sum(-(-min(shard_rows, len(splits[split]) - shard * shard_rows) // batch) for split, shard in todo)
    size = batch * max(1, min(_MAX_BATCHES, total // (4 * actors)))
    for split, shard in todo:
        items = splits[split]
        stop = min((shard + 1) * shard_rows, len(items))
        for start in range(shard * shard_rows, stop, size):
            yield batch_table(items, split, range(start, min(start + size, stop), batch))
