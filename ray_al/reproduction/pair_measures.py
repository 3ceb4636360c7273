"""Ways to measure a claim that compares many pairs of arms at many numbers of labels. All is paired by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from ray_al.reproduction.claims import Arm, Measured, NotRun
from ray_al.reproduction.numbers import average, budgets, gaps, span
from ray_al.reproduction.records import Records

Pairs = tuple[tuple[Arm, Arm], ...]


@dataclass(frozen=True)
class Many:
    """Base of measures over pairs of arms, at `labels` or, without, at all that the two of a pair have in common."""

    pairs: Pairs
    labels: tuple[int, ...] = ()
    after: int = 0  # without `labels`: more than so many

    @property
    def arms(self) -> tuple[Arm, ...]:
        return tuple(dict.fromkeys(arm for pair in self.pairs for arm in pair))

    def _common(self, records: Records, a: Arm, b: Arm) -> list[int]:
        found = [n for n in budgets(records, (a, b)) if n > self.after]
        if not found:
            raise NotRun(records.command(a.sweep), f"{a} and {b} at more than {self.after} labels")
        return found

    def _gaps(self, records: Records) -> list[tuple[Arm, Arm, int, pd.DataFrame]]:
        cells = [(a, b, n) for a, b in self.pairs for n in self.labels or self._common(records, a, b)]
        return [(a, b, n, gaps(records, a, b, n)) for a, b, n in cells]


@dataclass(frozen=True)
class LeastGap(Many):
    """The smallest mean difference of any pair at any number of labels: above 0, `a` is ahead everywhere."""

    def __call__(self, records: Records) -> Measured:
        found = [(average(rows, "gap"), a, b, n) for a, b, n, rows in self._gaps(records)]
        least, a, b, n = min(found, key=lambda one: one[0].value)
        ahead = sum(one.value > 0 for one, *_ in found)
        note = f"least, {a} - {b}, at {n:,}; above 0 in {ahead} of {len(found)}"
        return replace(least, labels=span([n for *_, n in found]), note=note)


@dataclass(frozen=True)
class LargestGap(Many):
    """The largest mean difference of any pair, in either direction, at any number of labels."""

    def __call__(self, records: Records) -> Measured:
        found = [(average(rows, "gap"), a, b, n) for a, b, n, rows in self._gaps(records)]
        most, a, b, n = max(found, key=lambda one: abs(one[0].value))
        note = f"largest, {a} - {b}, at {n:,}"
        return replace(most, value=abs(most.value), labels=span([n for *_, n in found]), note=note)


@dataclass(frozen=True)
class MeanGap(Many):
    """The mean difference over all pairs and numbers of labels; its error is over seeds that have all of them."""

    def __call__(self, records: Records) -> Measured:
        found = self._gaps(records)
        by_seed = pd.concat([rows for *_, rows in found]).groupby(["run", "seed"])["gap"].agg(["mean", "size"])
        whole = by_seed[by_seed["size"] == len(found)].reset_index()
        if whole.empty:
            raise NotRun(records.command(self.arms[0].sweep), "a seed with all cells")
        labels = span([n for *_, n, _ in found])
        return replace(average(whole, "mean"), labels=labels, note=f"mean of {len(found)} cells")


@dataclass(frozen=True)
class ShareAhead(Many):
    """The share of pairs and numbers of labels in which the mean of `a` is above that of `b`."""

    def __call__(self, records: Records) -> Measured:
        found = self._gaps(records)
        means = [average(rows, "gap") for *_, rows in found]
        ahead = sum(one.value > 0 for one in means)
        runs = min(one.runs for one in means)
        note = f"{ahead} of {len(means)} cells"
        return Measured(ahead / len(means), math.nan, math.nan, runs, 1, span([n for *_, n, _ in found]), note)
