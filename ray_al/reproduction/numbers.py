"""Means and errors over draws and over repeats of a sweep (other auto-encoders); differences that pair by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ray_al.reproduction.claims import Arm, Measured, NotRun
from ray_al.reproduction.records import Records


def at(records: Records, arm: Arm, labels: int) -> pd.DataFrame:
    """Accuracies of an arm at one number of labels: run, seed, trajectory_id, accuracy.

    A trajectory that several repeats share, as it does not depend on what they differ in, counts once.

    Raises:
        NotRun: there are none.
    """
    rows = records.curve(arm)
    rows = rows[rows["labels"] == labels].drop_duplicates("trajectory_id")
    if rows.empty:
        raise NotRun(records.command(arm.sweep), f"{arm} at {labels} labels")
    return rows


def budgets(records: Records, arms: Sequence[Arm]) -> list[int]:
    """The numbers of labels that all of these arms have, ascending. Raises NotRun where they share none."""
    held = [set(records.curve(arm)["labels"]) for arm in arms]
    common = sorted(int(labels) for labels in set.intersection(*held))
    if not common:
        raise NotRun(records.command(arms[0].sweep), "equal numbers of labels")
    return common


def average(values: pd.DataFrame, column: str = "accuracy") -> Measured:
    """The mean over repeats of means over draws.

    `std` is that of draws within a repeat. The error has both parts: of repeats, where there are several, and of draws;
    where repeats have draws in common this counts the latter once.
    """
    groups = values.groupby("run", sort=True)[column]
    means, counts = groups.mean().to_numpy(), groups.size().to_numpy()
    free = int((counts - 1).sum())
    within = float(np.sqrt((groups.var(ddof=1).fillna(0).to_numpy() * (counts - 1)).sum() / free)) if free else math.nan
    draws = within / math.sqrt(counts.min())
    between = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    error = between if math.isnan(draws) and len(means) > 1 else math.hypot(draws, between)
    return Measured(float(means.mean()), error, within, int(counts.min()), len(means))


def gaps(records: Records, a: Arm, b: Arm, labels_a: int, labels_b: int | None = None) -> pd.DataFrame:
    """Accuracy of `a` - that of `b` by run and seed: run, seed, gap. Raises NotRun where no seed has both."""
    rows_a, rows_b = records.curve(a), records.curve(b)
    rows_a, rows_b = rows_a[rows_a["labels"] == labels_a], rows_b[rows_b["labels"] == (labels_b or labels_a)]
    both = rows_a.merge(rows_b, on=["run", "seed"], suffixes=("", "_b"))
    both = both.drop_duplicates(["trajectory_id", "trajectory_id_b"])
    if both.empty:
        raise NotRun(records.command(a.sweep), f"{a} and {b} at {labels_a} labels")
    return both.assign(gap=both["accuracy"] - both["accuracy_b"])[["run", "seed", "gap"]]


def first_reached(labels: Sequence[int], values: Sequence[float], level: float) -> float:
    """The smallest number of labels whose value is at least `level`; infinite if none."""
    return min((n for n, value in zip(labels, values, strict=True) if value >= level), default=math.inf)


def span(labels: Sequence[int]) -> str:
    """Numbers of labels in words: "40", "20, 40", "20 to 200 (10 budgets)"."""
    distinct = sorted(set(labels))
    steps = {b - a for a, b in pairwise(distinct)}
    if len(distinct) < 4:
        return ", ".join(f"{n:,}" for n in distinct)
    every = f"every {steps.pop():,}" if len(steps) == 1 else f"{len(distinct)} budgets"
    return f"{distinct[0]:,} to {distinct[-1]:,}, {every}"
