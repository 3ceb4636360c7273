"""The groups of columns of Table III of "Rethinking deep active learning", and the sweeps that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_al.reproduction.claims import PERCENT, Arm, Claim, Measure, Reported, Rule
from ray_al.reproduction.measures import Mean
from ray_al.reproduction.pair_measures import Pairs
from ray_al.reproduction.rethinking_tables import TABLE3
from ray_al.reproduction.rules import AtLeast, WithinErrors

SEEDS = 5
FLOOR = 0.03  # by which equal trainings of the paper differ: its cycle-0 numbers of one setting, Table II
OTHERS = ("uncertainty", "coreset", "ceal", "jlp")
FEW = ("uncertainty", "coreset", "jlp")  # that are combined with SEMI
SINGLE_GPU = "rethinking-gpu"


@dataclass(frozen=True)
class Setup:
    """A group of columns of Table III, and the sweep that makes it."""

    key: str
    title: str
    batch: int
    sweep: str

    def arm(self, setting: str, strategy: str) -> Arm:
        return Arm(self.sweep, setting, strategy)

    def labels(self, cycle: int) -> int:
        return self.batch * (cycle + 1)

    @property
    def later(self) -> tuple[int, ...]:
        """The numbers of labels after the first acquisition."""
        return tuple(self.labels(cycle) for cycle in range(1, 5))

    def pairs(self, a: str, b: str, strategies: Sequence[str]) -> Pairs:
        """Two settings under the same strategies."""
        return tuple((self.arm(a, one), self.arm(b, one)) for one in strategies)

    def against(self, setting: str, strategy: str, others: Sequence[str]) -> Pairs:
        """One strategy and each of others under the same setting."""
        return tuple((self.arm(setting, strategy), self.arm(setting, one)) for one in others)

    def mean(self, cycle: int, setting: str, strategy: str) -> float:
        return TABLE3[self.key, setting][cycle, strategy][0] / 100

    def mean_gap(self, pairs: Pairs, cycles: Sequence[int] = (1, 2, 3, 4)) -> float:
        """What Table III has for `MeanGap`."""
        found = [
            self.mean(cycle, a.learner, a.strategy) - self.mean(cycle, b.learner, b.strategy)
            for a, b in pairs
            for cycle in cycles
        ]
        return sum(found) / len(found)


C10_100 = Setup("cifar10-100", "CIFAR-10, 100 labels a cycle", 100, "rethinking-table3-cifar10-100")
C10_1000 = Setup("cifar10-1000", "CIFAR-10, 1,000 labels a cycle", 1000, "rethinking-table3-cifar10-1000")
C100 = Setup("cifar100-1000", "CIFAR-100, 1,000 labels a cycle", 1000, "rethinking-table3-cifar100-1000")
SVHN = Setup("svhn-100", "SVHN, 100 labels a cycle", 100, "rethinking-table3-svhn-100")
ON_ONE_GPU = Setup("cifar10-100", "CIFAR-10, 100 labels a cycle, on one GPU", 100, SINGLE_GPU)


def percent_claim(
    text: str, source: str, measure: Measure, rule: Rule,
    reported: float | None = None, said: str = "",
) -> Claim:  # fmt: skip
    told = Reported(said=said) if reported is None else Reported(reported)
    return Claim(text, source, measure, rule, told, PERCENT)


def half(gap: float) -> AtLeast:
    """For a gain that the paper gives as a number: at least half of it, beyond chance."""
    return AtLeast(gap / 2, 2)


def cells(at: Setup, settings: Sequence[str], strategies: Sequence[str] = ("random", *OTHERS)) -> tuple[Claim, ...]:
    """Every number of Table III."""
    return tuple(
        Claim(
            f"cycle {cycle}, {strategy}, {setting}", "Table III", Mean(at.arm(setting, strategy), at.labels(cycle)),
            WithinErrors(), Reported(mean / 100, std / 100, SEEDS), PERCENT,
        )
        for setting in settings
        for (cycle, strategy), (mean, std) in TABLE3[at.key, setting].items()
        if strategy in strategies
    )  # fmt: skip
