"""Ways to measure a claim in the accuracies of results. What they compare is paired by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ray_al.reproduction.claims import Arm, Measured, NotRun
from ray_al.reproduction.numbers import at, average, budgets, first_reached, gaps, span
from ray_al.reproduction.records import Records


@dataclass(frozen=True)
class Mean:
    """Mean accuracy of an arm."""

    arm: Arm
    labels: int

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        return replace(average(at(records, self.arm, self.labels)), labels=f"{self.labels:,}")


@dataclass(frozen=True)
class Spread:
    """Standard deviation of an arm's accuracy over draws; its error is that of normal draws."""

    arm: Arm
    labels: int

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        found = average(at(records, self.arm, self.labels))
        if math.isnan(found.std):
            raise NotRun(records.command(self.arm.sweep), "a second draw")
        free = found.repeats * (found.runs - 1)
        error = found.std / math.sqrt(2 * free)
        return Measured(found.std, error, math.nan, found.runs, found.repeats, f"{self.labels:,}")


@dataclass(frozen=True)
class BetweenRepeats:
    """Standard deviation, over repeats (other auto-encoders), of the mean accuracy over draws."""

    arm: Arm
    labels: int
    sets: tuple[str, ...]  # what makes a second repeat

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        rows = at(records, self.arm, self.labels)
        means = rows.groupby("run")["accuracy"].mean()
        if len(means) < 2:
            raise NotRun(records.command(self.arm.sweep, *self.sets), "a second repeat")
        found = average(rows)
        note = f"{means.min():.4f} to {means.max():.4f}"
        return Measured(
            float(means.std(ddof=1)), math.nan, math.nan, found.runs, found.repeats, f"{self.labels:,}", note
        )


@dataclass(frozen=True)
class FirstLabels:
    """The smallest number of labels at which an arm's mean accuracy is at least `level`."""

    arm: Arm
    level: float

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        labels = budgets(records, self.arms)
        found = [average(at(records, self.arm, n)) for n in labels]
        value = first_reached(labels, [one.value for one in found], self.level)
        return Measured(value, math.nan, math.nan, found[0].runs, found[0].repeats, span(labels))


@dataclass(frozen=True)
class Overtakes:
    """The smallest number of labels from which on the mean accuracy of `a` is at least that of `b`."""

    a: Arm
    b: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.a, self.b)

    def __call__(self, records: Records) -> Measured:
        labels = budgets(records, self.arms)
        found = [average(gaps(records, self.a, self.b, n), "gap") for n in labels]
        ahead = math.inf
        for n, one in zip(reversed(labels), reversed(found), strict=True):
            if one.value < 0:
                break
            ahead = n
        return Measured(ahead, math.nan, math.nan, found[-1].runs, found[-1].repeats, span(labels))


@dataclass(frozen=True)
class Gap:
    """Accuracy of `a` - that of `b`; of `b` at its own number of labels, if given."""

    a: Arm
    b: Arm
    labels: int
    labels_b: int | None = None

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.a, self.b)

    def __call__(self, records: Records) -> Measured:
        found = average(gaps(records, self.a, self.b, self.labels, self.labels_b), "gap")
        where = f"{self.labels:,}" + (f" and {self.labels_b:,}" if self.labels_b else "")
        return replace(found, labels=where)


@dataclass(frozen=True)
class Fades:
    """The gap of `a` and `b` at the first of `labels` minus that at the last, by seed."""

    a: Arm
    b: Arm
    labels: tuple[int, int]

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.a, self.b)

    def __call__(self, records: Records) -> Measured:
        first, last = (gaps(records, self.a, self.b, n) for n in self.labels)
        both = first.merge(last, on=["run", "seed"], suffixes=("", "_last"))
        if both.empty:
            raise NotRun(records.command(self.a.sweep), "a seed with both")
        found = average(both.assign(change=both["gap"] - both["gap_last"]), "change")
        note = f"from {average(first, 'gap').value * 100:+.2f} to {average(last, 'gap').value * 100:+.2f}"
        return replace(found, labels=f"{self.labels[0]:,} and {self.labels[1]:,}", note=note)


@dataclass(frozen=True)
class RatioOfSpreads:
    """The largest ratio, over numbers of labels, of the standard deviations over draws of `a` and `b`."""

    a: Arm
    b: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.a, self.b)

    def __call__(self, records: Records) -> Measured:
        labels = budgets(records, self.arms)
        both = [[average(at(records, arm, n)) for arm in self.arms] for n in labels]
        if any(math.isnan(one.std) or one.std == 0 for pair in both for one in pair[1:]):
            raise NotRun(records.command(self.a.sweep), "a second draw")
        ratios = [pair[0].std / pair[1].std for pair in both]
        where = max(range(len(labels)), key=ratios.__getitem__)
        below = sum(ratio < 1 for ratio in ratios)
        note = f"largest, at {labels[where]:,}; below 1 in {below} of {len(labels)}"
        runs, repeats = both[where][0].runs, both[where][0].repeats
        return Measured(ratios[where], math.nan, math.nan, runs, repeats, span(labels), note)


@dataclass(frozen=True)
class Highest:
    """The largest mean accuracy of any of these arms at one number of labels."""

    of: tuple[Arm, ...]
    labels: int

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.of

    def __call__(self, records: Records) -> Measured:
        found = [(average(at(records, arm, self.labels)), arm) for arm in self.of]
        most, arm = max(found, key=lambda one: one[0].value)
        return replace(most, labels=f"{self.labels:,}", note=f"highest, {arm}")
