"""From cells to trajectories: what does not fit together, the spaces each reads, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_al.cells import Cell, protocol_of
from ray_al.core.protocol import Protocol
from ray_al.data.datasets import DataError, Dataset
from ray_al.data.spaces import SpaceSpec, default_space, find_space, space_faults
from ray_al.experiment import Choice, TrajectoryConfig
from ray_al.results.schema import TrajectoryName

LOOP_VERSION = 1  # part of every identity: raise it when the loop or the initial sets change results


def cell_faults(cells: Sequence[Cell]) -> list[str]:
    """Budgets over the pool, heads that a learner lacks, strategies that cannot start cold."""
    found: list[str] = []
    # Seeds differ in nothing that is checked here.
    for cell in {(c.dataset.label, c.learner.label, c.strategy.label, c.protocol): c for c in cells}.values():
        if not cell.strategy.method.whole_pool:
            found += _budget_faults(cell)
            found += _cold_faults(cell)
        found += _head_faults(cell.learner, cell.strategy)
    return list(dict.fromkeys(found))


def _cold_faults(cell: Cell) -> list[str]:
    """What cannot go on without a model, and what cannot forget one."""
    protocol, strategy, learner = protocol_of(cell.protocol), cell.strategy, cell.learner
    found = []
    if protocol.initial == 0 and not strategy.method.cold_start:
        when = (
            "one-shot draws have none" if protocol.budgets else "with initial: 0 the strategy chooses the first batch"
        )
        found.append(f"strategy {strategy.label!r} needs a model to choose; {when}")
    if protocol.budgets and learner.method.carries:
        found.append(f"learner {learner.label!r} carries weights from round to round; one-shot draws are independent")
    return found


def _budget_faults(cell: Cell) -> list[str]:
    dataset, protocol = cell.dataset, protocol_of(cell.protocol)
    size = len(dataset.pool_labels)
    if protocol.batch > size and not protocol.budgets:
        return [f"protocol.batch: {protocol.batch:,} is more than the pool of {dataset.label!r} ({size:,} items)"]
    if protocol.total_labels > size:
        return [
            f"protocol {protocol.label!r} asks for {protocol.total_labels:,} labels, "
            f"the pool of {dataset.label!r} has {size:,} items"
        ]
    share = -(-protocol.initial // dataset.classes)
    if protocol.balanced and share > (smallest := int(np.bincount(dataset.pool_labels).min())):
        return [
            f"protocol.initial: {protocol.initial:,} balanced labels take up to {share:,} of each class; the smallest "
            f"class of {dataset.label!r} has {smallest:,} (balanced: false draws at random)"
        ]
    return []


def _head_faults(learner: Choice, strategy: Choice) -> list[str]:
    missing = strategy.method.needs - learner.method.heads
    if not missing:
        return []
    return [
        f"strategy {strategy.label!r} needs the head {', '.join(sorted(missing))}, which learner {learner.label!r} "
        f"does not offer (it has: {', '.join(sorted(learner.method.heads))}); exclude the pair, or change one"
    ]


def twin_faults(datasets: Sequence[Dataset]) -> list[str]:
    """Two entries with the same content would be one experiment under two names."""
    seen: dict[str, str] = {}
    return [
        f"axes.dataset: {seen[d.fingerprint]!r} and {d.label!r} hold the same data; remove one"
        for d in datasets
        if seen.setdefault(d.fingerprint, d.label) != d.label
    ]


class SpaceBook:
    """What each space name means for each dataset, checked once; faults are collected."""

    def __init__(self, own: Mapping[str, SpaceSpec], faults: list[str]) -> None:
        self._own, self._faults = own, faults
        self._found: dict[tuple[str, str], tuple[SpaceSpec, Any] | None] = {}

    def find(self, dataset: Dataset, name: str) -> tuple[SpaceSpec, Any] | None:
        """(spec, key) of a space; None when it cannot be made of the dataset, which is then among the faults."""
        where = (dataset.fingerprint, name)
        if where not in self._found:
            try:
                spec = find_space(name, self._own)
                if faults := space_faults(spec, dataset, self._own):
                    raise DataError(faults)
                self._found[where] = spec, spec.key(dataset, self._own)
            except DataError as error:
                self._faults += error.faults
                self._found[where] = None
        return self._found[where]

    def used(self, dataset: Dataset) -> dict[str, SpaceSpec]:
        """The spaces that were asked for, and the sweep's own, of which they may be made."""
        asked = {name: found[0] for (of, name), found in self._found.items() if found and of == dataset.fingerprint}
        return {**self._own, **asked}

    def check_images(self, dataset: Dataset, choice: Choice, name: str) -> None:
        """A network reads images, everything else reads vectors."""
        found = self.find(dataset, name)
        wants = choice.method.on_images
        if found and wants is not None and wants != (found[0].method == "images"):
            need = "images; give it space: images" if wants else "vectors, and 'images' has none; try pixels"
            self._faults.append(f"{choice.kind} {choice.label!r}: space {name!r} does not fit, it reads {need}")


def spaces_of(cell: Cell) -> tuple[str, ...]:
    """The spaces a trajectory reads, its learner's first: what a strategy adds changes nothing for the learner."""
    default = default_space(cell.dataset).name
    learner, strategy = cell.learner, cell.strategy
    found = [learner.values["space"] or default] if "space" in learner.values else []
    found += learner.method.reads
    if not found:
        found.append(default)
    if "space" in strategy.values:
        # Without a space of its own it measures in the model's embedding, when there is a model that has one.
        own = strategy.values["space"]
        embedded = "embedding" in learner.method.heads and protocol_of(cell.protocol).initial > 0
        if own or not embedded:
            found.append(own or default)
    if strategy.candidates and "space" in strategy.candidates.values:
        own = strategy.candidates.values["space"]
        if own or not [space for space in found if space != "images"]:
            found.append(own or default)
    return tuple(dict.fromkeys([*found, *strategy.method.reads]))


def trajectory_of(cell: Cell, position: int, sweep: str, book: SpaceBook) -> TrajectoryConfig | None:
    """The trajectory of a cell; None when a space it reads cannot be made."""
    spaces = spaces_of(cell)
    found = {space: book.find(cell.dataset, space) for space in spaces}
    for choice in (cell.learner, cell.strategy, cell.strategy.candidates):
        if choice and choice.values.get("space"):
            book.check_images(cell.dataset, choice, choice.values["space"])
    if None in found.values():
        return None
    whole = cell.strategy.method.whole_pool
    protocol = Protocol(0, False, len(cell.dataset.pool_labels), 1) if whole else protocol_of(cell.protocol)
    label = "all" if whole else cell.protocol.label or protocol.label
    keys = {space: pair[1] for space, pair in found.items() if pair}
    default = default_space(cell.dataset).name
    identity = {
        "loop": LOOP_VERSION,
        "dataset": cell.dataset.fingerprint,
        "learner": _identity(cell.learner, keys, default),
        "strategy": _identity(cell.strategy, keys, None) | _restriction(cell.strategy, keys, spaces),
        "protocol": protocol.identity,
        "seed": cell.seed,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    name = TrajectoryName(
        digest, sweep, cell.dataset.label, cell.learner.label, cell.strategy.label, label, cell.seed
    )  # fmt: skip
    return TrajectoryConfig(name, position, cell.learner, cell.strategy, protocol, cell.seed, spaces)


def _identity(choice: Choice, keys: Mapping[str, Any], default: str | None) -> dict[str, Any]:
    """A method and its arguments, spaces by what they hold and not by what a sweep calls them."""
    values = {key: value for key, value in choice.values.items() if not (choice.candidates and key == "candidates")}
    if "space" in values:
        values["space"] = keys.get(values["space"] or default or "")
    reads = [keys[space] for space in choice.method.reads]
    return {"name": choice.name, "values": values, "reads": reads, "version": choice.method.version}


def _restriction(strategy: Choice, keys: Mapping[str, Any], spaces: Sequence[str]) -> dict[str, Any]:
    """What candidates add to the identity of a strategy: nothing where there are none."""
    if strategy.candidates is None:
        return {}
    return {"candidates": _identity(strategy.candidates, keys, next(s for s in spaces if s != "images"))}
