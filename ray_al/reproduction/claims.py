"""What a paper reports, as data: claims, each with a way to measure it in results and a rule for when it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ray_al.reproduction.records import Records


class NotRun(Exception):
    """Results lack what a claim needs; says what, and the command that makes it."""

    def __init__(self, command: str, what: str = "") -> None:
        super().__init__(what)
        self.command, self.what = command, what


@dataclass(frozen=True)
class Arm:
    """A strategy with a learner in a sweep, by their labels. Runs `<sweep>-1`, `<sweep>-2`... are repeats of it.

    `dataset` is needed where the sweep has several.
    """

    sweep: str
    learner: str
    strategy: str
    dataset: str = ""

    def __str__(self) -> str:
        return f"{self.strategy} with {self.learner}" + (f" on {self.dataset}" if self.dataset else "")


@dataclass(frozen=True)
class Measured:
    """A number out of results. Accuracies are shares of 1."""

    value: float  # infinite: never, of a number of labels
    error: float = math.nan  # standard error of the value; NaN where one run cannot tell
    std: float = math.nan  # over runs, n - 1; NaN where the value is no mean over runs
    runs: int = 0  # seeds or draws of a repeat
    repeats: int = 1  # sweeps with another auto-encoder
    labels: str = ""  # where: "40", "20 to 200"
    note: str = ""


class Measure(Protocol):
    @property
    def arms(self) -> Sequence[Arm]: ...

    def __call__(self, records: Records) -> Measured:
        """Raises NotRun."""
        ...


@dataclass(frozen=True)
class Reported:
    """The number in the paper, NaN where it gives none; `said` are its words then; std and runs where it has them."""

    value: float = math.nan
    std: float = math.nan
    runs: int = 0
    said: str = ""

    @property
    def error(self) -> float:
        return self.std / math.sqrt(self.runs) if self.runs else math.nan


class Rule(Protocol):
    def text(self, unit: Unit) -> str: ...

    def holds(self, ours: Measured, reported: Reported) -> bool: ...


@dataclass(frozen=True)
class Unit:
    """How numbers of a claim are written: `value` is multiplied by `scale`."""

    scale: float = 1.0
    digits: int = 4
    suffix: str = ""

    def show(self, value: float) -> str:
        if math.isnan(value):
            return "?"
        return "never" if math.isinf(value) else f"{value * self.scale:,.{self.digits}f}{self.suffix}"

    def short(self, value: float) -> str:
        """Without zeros at the end: numbers that were chosen, not measured."""
        text = f"{value * self.scale:,.{self.digits}f}"
        return (text.rstrip("0").rstrip(".") if self.digits else text) + self.suffix

    def signed(self, value: float) -> str:
        return f"{value * self.scale:+,.{self.digits}f}{self.suffix}"


ACCURACY = Unit()
PERCENT = Unit(100.0, 2)
LABELS = Unit(1.0, 0, " labels")
SHARE = Unit(100.0, 0, "%")
SECONDS = Unit(1.0, 2, " s")


@dataclass(frozen=True)
class Claim:
    text: str
    source: str  # section, figure or table; "expectation" where the paper says nothing
    measure: Measure
    rule: Rule
    reported: Reported = Reported()
    unit: Unit = ACCURACY
    runs: int | None = None  # None: as many as the paper has


@dataclass(frozen=True)
class Section:
    """Claims under one heading. Claims that are not run are `folded` to one line where there are many of a kind."""

    title: str
    claims: tuple[Claim, ...]
    folded: bool = False
    text: str = ""


@dataclass(frozen=True)
class Expected:
    """A setting of the paper. `only`: where these other settings have these values.

    `shown` settings are named in every line; others where they differ.
    """

    key: str
    value: Any
    name: str
    shown: bool = False
    only: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    key: str
    title: str
    reference: str
    text: str
    sections: tuple[Section, ...]
    expected: tuple[Expected, ...]
    data: Mapping[str, Sequence[str]]  # sweep -> the datasets that it has, as settings say them: "mnist 0 3 9"
    runs: int  # seeds or draws of the paper
    run_word: str  # "draws", "seeds"
    repeat_word: str = "repeats"
    commands: Mapping[str, str] = field(default_factory=dict)  # of results that no sweep file makes


def sweep_file(sweep: str) -> str:
    """Where the file of a sweep lies in this repository."""
    return f"sweeps/{sweep.replace('-', '_')}.yaml"
