"""When a claim holds. Each rule says so in words, which stand in the page beside the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ray_al.reproduction.claims import Measured, Reported, Unit


def error_of_difference(ours: Measured, reported: Reported) -> float:
    """Standard error of ours - reported; NaN where it is not known.

    With one run of ours, and a deviation over runs in the paper, ours is taken to vary as the paper's.
    """
    own = ours.error
    if math.isnan(own) and ours.runs == 1 and not math.isnan(reported.std):
        own = reported.std
    other = 0.0 if math.isnan(reported.error) else reported.error
    return math.hypot(own, other)


@dataclass(frozen=True)
class Within:
    """The value is near the one reported."""

    tolerance: float

    def text(self, unit: Unit) -> str:
        return f"within {unit.short(self.tolerance)}"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return abs(ours.value - reported.value) <= self.tolerance + 1e-12


@dataclass(frozen=True)
class WithinErrors:
    """The value differs from the one reported by no more than chance, of both, explains."""

    errors: float = 3.0

    def text(self, unit: Unit) -> str:
        return f"within {self.errors:g} se"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return abs(ours.value - reported.value) <= self.errors * error_of_difference(ours, reported) + 1e-12


@dataclass(frozen=True)
class AtLeast:
    """The value is no less than a bound and, with `errors`, above zero by so many standard errors.

    Of one run the error is not known: then the bound alone counts.
    """

    bound: float
    errors: float = 0.0

    def text(self, unit: Unit) -> str:
        more = f" and {self.errors:g} se above 0" if self.errors else ""
        return f"at least {unit.short(self.bound)}{more}"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        clear = math.isnan(ours.error) or ours.value > self.errors * ours.error
        return ours.value >= self.bound and (clear or not self.errors)


@dataclass(frozen=True)
class AtMost:
    bound: float

    def text(self, unit: Unit) -> str:
        return f"at most {unit.short(self.bound)}"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return ours.value <= self.bound


@dataclass(frozen=True)
class Above:
    bound: float = 0.0

    def text(self, unit: Unit) -> str:
        return f"above {unit.short(self.bound)}"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return ours.value > self.bound


@dataclass(frozen=True)
class Below:
    bound: float = 0.0

    def text(self, unit: Unit) -> str:
        return f"below {unit.short(self.bound)}"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return ours.value < self.bound


@dataclass(frozen=True)
class Indistinct:
    """Not above zero by more than chance explains."""

    errors: float = 2.0

    def text(self, unit: Unit) -> str:
        return f"not above 0 by more than {self.errors:g} se"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return ours.value <= 0 or ours.value <= self.errors * ours.error


@dataclass(frozen=True)
class NearZero:
    """No farther from zero than a tolerance."""

    tolerance: float

    def text(self, unit: Unit) -> str:
        return f"within {unit.short(self.tolerance)} of 0"

    def holds(self, ours: Measured, reported: Reported) -> bool:
        return abs(ours.value) <= self.tolerance
