"""The cells of a sweep's grid: the product of its axes, with those that move together and without those excluded."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_al.core.protocol import Protocol
from ray_al.data.datasets import Dataset
from ray_al.experiment import Choice
from ray_al.sweep_file import AXES, ProtocolSection, SweepFile

MAX_CELLS = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One value of each axis."""

    dataset: Dataset
    learner: Choice
    strategy: Choice
    protocol: ProtocolSection
    seed: int


def protocol_of(section: ProtocolSection) -> Protocol:
    if section.budgets:
        return Protocol.one_shot(section.budgets)
    # Whether an empty initial set is balanced makes no difference, and should make none to identities.
    return Protocol(section.initial, section.balanced and section.initial > 0, section.batch, section.rounds)


def names_of(value: Any) -> list[Any]:
    """What a rule may call a value of an axis: its label, or its name; a seed by itself."""
    if isinstance(value, ProtocolSection):
        return [value.label or protocol_of(value).label]
    if isinstance(value, Dataset):
        return [value.label, value.spec.name]
    return [value.label, value.name] if isinstance(value, Choice) else [value]


def expand(
    file: SweepFile,
    datasets: Sequence[Dataset],
    learners: Sequence[Choice],
    strategies: Sequence[Choice],
    faults: list[str],
) -> list[Cell]:
    """Write the grid out; faults of `zip` and `exclude` are added to `faults`.

    Entries that were found faulty before are missing from `datasets`, `learners` and `strategies`. The cells of the
    rest are then still worth checking, but rules that match nothing are not worth mentioning.
    """
    axes: dict[str, Sequence[Any]] = dict(
        zip(AXES, (datasets, learners, strategies, file.protocol, file.axes.seed), strict=True)
    )
    complete = all(len(axes[axis]) == len(getattr(file.axes, axis)) for axis in AXES[:3])
    groups, wrong = _groups(file)
    wrong += [
        f"exclude[{k}]: unknown axis {axis!r}; known: {', '.join(AXES)}"
        for k, rule in enumerate(file.exclude)
        for axis in rule
        if axis not in AXES
    ]
    if ("seed",) in groups and (twice := [seed for seed, times in Counter(file.axes.seed).items() if times > 1]):
        wrong.append(f"axes.seed: {twice[0]} is there more than once")
    faults += wrong
    if wrong or (file.zip and not complete):
        return []
    points = [range(len(axes[group[0]])) for group in groups]
    count = 1
    for point in points:
        count *= len(point)
    if count > MAX_CELLS:
        faults.append(f"the grid has {count:,} cells, at most {MAX_CELLS:,} are allowed")
        return []
    cells, hits = [], [0] * len(file.exclude)
    for where in itertools.product(*points):
        cell = Cell(**{axis: axes[axis][i] for group, i in zip(groups, where, strict=True) for axis in group})
        matched = [k for k, rule in enumerate(file.exclude) if _matches(rule, cell)]
        for k in matched:
            hits[k] += 1
        if not matched:
            cells.append(cell)
    if complete:
        idle = [f"exclude[{k}] {rule} matches no cell" for k, rule in enumerate(file.exclude) if not hits[k]]
        faults += idle or ([] if cells else ["exclude leaves nothing to run"])
    return cells


def _matches(rule: Mapping[str, Any], cell: Cell) -> bool:
    def is_one(wanted: Any, value: Any) -> bool:
        return any(one in names_of(value) for one in (wanted if isinstance(wanted, list) else [wanted]))

    return all(is_one(wanted, getattr(cell, axis)) for axis, wanted in rule.items())


def _groups(file: SweepFile) -> tuple[list[tuple[str, ...]], list[str]]:
    """Axes that move together, then every other axis by itself; and what is wrong with `zip`."""
    taken: list[str] = []
    groups, faults = [], []
    for group in file.zip:
        lengths = {a: len(file.protocol if a == "protocol" else getattr(file.axes, a)) for a in group if a in AXES}
        if unknown := [axis for axis in group if axis not in AXES]:
            faults.append(f"zip: unknown axis {unknown[0]!r}; known: {', '.join(AXES)}")
        elif len(group) < 2 or len(set(group)) < len(group) or set(group) & set(taken):
            faults.append(f"zip: {group} must name two or more axes, each once in all groups")
        elif len(set(lengths.values())) > 1:
            faults.append(f"zip: axes of one group need equal lengths, got {lengths}")
        taken += group
        groups.append(tuple(group))
    return groups + [(axis,) for axis in AXES if axis not in taken], faults


def name_faults(cells: Sequence[Cell]) -> list[str]:
    """Cells that results could not tell apart: two values of an axis with one name."""
    faults = []
    for axis in AXES:
        seen: dict[Any, Any] = {}
        for cell in cells:
            value = getattr(cell, axis)
            name = names_of(value)[0]
            if seen.setdefault(name, value) is not value and seen[name] != value:
                faults.append(f"axis {axis}: two entries are called {name!r}; give one of them a label")
    return list(dict.fromkeys(faults))
