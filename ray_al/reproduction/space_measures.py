"""Ways to measure a claim in the spaces of a sweep: clusters against classes, covering radii of labeled sets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ray_al.reproduction.claims import Arm, Measured, NotRun
from ray_al.reproduction.numbers import span
from ray_al.reproduction.records import Records
from ray_al.results.covering import RADIUS
from ray_al.results.spaces_section import SpaceFacts


def facts_of(records: Records, sweep: str) -> dict[str, SpaceFacts]:
    """What was measured of the spaces of each run. Raises NotRun where no run has its artifacts beside it."""
    runs = records.runs(sweep)
    found = {run.name: run.facts for run in runs}
    known = {name: facts for name, facts in found.items() if facts is not None}
    if not known:
        raise NotRun(records.command(sweep), "the artifacts of its spaces" if runs else "")
    return known


@dataclass(frozen=True)
class Nmi:
    """Normalized mutual information of classes and k-means with as many clusters, of the start with least inertia.

    With `minus`, the difference of two spaces. Its mean over repeats, where these have spaces of their own.
    """

    arm: Arm  # a reader of the space: its settings are the space's
    space: str
    minus: str = ""

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        values, notes = [], []
        for facts in facts_of(records, self.arm.sweep).values():
            nmi = {one.space: one for one in facts.agreements}
            if not {self.space, self.minus or self.space} <= nmi.keys():
                raise NotRun(records.command(self.arm.sweep), f"the space {self.space}")
            one = nmi[self.space]
            values.append(one.nmi - (nmi[self.minus].nmi if self.minus else 0.0))
            notes.append(f"{one.low:.2f} to {one.high:.2f}")
        distinct = list(dict.fromkeys(values))  # a space that repeats share is one
        spread = float(np.std(distinct, ddof=1)) if len(distinct) > 1 else math.nan
        error = spread / math.sqrt(len(distinct))
        note = "" if self.minus else "over starts of k-means: " + ", ".join(dict.fromkeys(notes))
        return Measured(float(np.mean(distinct)), error, spread, 0, len(distinct), "", note)


@dataclass(frozen=True)
class RadiusRatio:
    """The largest ratio, over numbers of labels, of mean covering radii of two strategies that select in a space."""

    arm: Arm
    other: Arm
    space: str

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm, self.other)

    def __call__(self, records: Records) -> Measured:
        ratios: dict[int, list[float]] = {}
        seeds = []
        for facts in facts_of(records, self.arm.sweep).values():
            radii = facts.radii[facts.radii["learner"] == self.space] if len(facts.radii) else facts.radii
            if not {self.arm.strategy, self.other.strategy} <= set(radii.get("strategy", ())):
                raise NotRun(records.command(self.arm.sweep), f"radii in the space {self.space}")
            means = radii.groupby(["strategy", "labels"])[RADIUS].mean().unstack(0)
            both = (means[self.arm.strategy] / means[self.other.strategy]).dropna()
            for labels, ratio in zip(both.index.astype(int).tolist(), both.tolist(), strict=True):
                ratios.setdefault(labels, []).append(ratio)
            seeds.append(radii["seed"].nunique())
        mean = {labels: float(np.mean(values)) for labels, values in ratios.items()}
        where = max(mean, key=mean.__getitem__)
        below = sum(value < 1 for value in mean.values())
        note = f"largest, at {where:,}; below 1 in {below} of {len(mean)}"
        return Measured(mean[where], math.nan, math.nan, min(seeds), len(seeds), span(list(mean)), note)
