"""What results say of claims."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ray_al.reproduction.claims import Claim, Measured, NotRun, Paper, Section
from ray_al.reproduction.records import Records
from ray_al.reproduction.rules import error_of_difference
from ray_al.reproduction.settings import Described, describe

HOLDS, FAILS, NOT_RUN = "holds", "fails", "not run"


@dataclass(frozen=True)
class Line:
    """One claim, and what became of it. Without `ours` it is not run, and `command` runs it."""

    claim: Claim
    verdict: str
    ours: Measured | None = None
    settings: str = ""
    reduced: tuple[str, ...] = ()  # words for the verdict: "reduced", "changed"
    deviation: float = math.nan
    errors: float = math.nan  # the deviation in standard errors
    command: str = ""
    lacks: str = ""


@dataclass(frozen=True)
class Judged:
    section: Section
    lines: tuple[Line, ...]


def judge(paper: Paper, records: Records) -> tuple[Judged, ...]:
    """Every claim of a paper. Raises ConfigError for results that cannot be read, or are of another version."""
    return tuple(
        Judged(section, tuple(_line(claim, paper, records) for claim in section.claims)) for section in paper.sections
    )


def counts(lines: Iterable[Line]) -> Counter[str]:
    return Counter(line.verdict for line in lines)


def _line(claim: Claim, paper: Paper, records: Records) -> Line:
    try:
        ours = claim.measure(records)
    except NotRun as lack:
        return Line(claim, NOT_RUN, command=lack.command, lacks=lack.what)
    settings, reduced = _settings(claim, ours, paper, records)
    deviation = ours.value - claim.reported.value
    error = error_of_difference(ours, claim.reported)
    known = math.isfinite(deviation) and error > 0
    verdict = HOLDS if claim.rule.holds(ours, claim.reported) else FAILS
    return Line(claim, verdict, ours, settings, reduced, deviation, deviation / error if known else math.nan)


def _settings(claim: Claim, ours: Measured, paper: Paper, records: Records) -> tuple[str, tuple[str, ...]]:
    """Settings of the runs that were measured, once where all arms have the same; and whether they are the paper's."""
    found: dict[str, list[str]] = {}
    marks: list[Described] = []
    for arm in claim.measure.arms:
        for run in records.runs(arm.sweep):
            if run.has(arm):
                marks.append(describe(run.settings(arm), paper.expected, paper.data[arm.sweep]))
                found.setdefault(marks[-1].text, []).append(arm.learner)
    if len(found) > 1:
        parts = [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in found.items() if text]
    else:
        parts = list(found)
    fewer = 0 < ours.runs < (paper.runs if claim.runs is None else claim.runs)
    reduced = ["reduced"] if fewer or any(mark.reduced for mark in marks) else []
    changed = ["changed"] if any(mark.changed for mark in marks) else []
    return "; ".join(part for part in parts if part), (*reduced, *changed)
