"""The results of a sweep as one table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ray_al.results.selection import ARM, CELL, FULL, ok_rounds, share_full, trajectories
from ray_al.results.statistics import aulc_table

if TYPE_CHECKING:
    from rich.table import Table

MARKS = {"±": "standard deviation over seeds", "*": "differs from random: paired by seed, Holm-corrected p < 0.05"}


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """One row per (dataset, learner, protocol, strategy), best area first, `full` at the end.

    Columns: names, done, total and failed (trajectories), rounds and labels (the most that one of them has), accuracy
    and sd (last round of those that are done), aulc, difference (to `random`, paired by seed), p_holm.
    """
    table = trajectories(results)
    counts = table.groupby(ARM).agg(
        done=("state", lambda states: int((states == "done").sum())),
        failed=("state", lambda states: int((states == "failed").sum())),
        total=("state", "size"),
        rounds=("rounds", "max"),
        labels=("labels", "max"),
    )
    done = table.loc[table["state"] == "done", "trajectory_id"]
    last = ok_rounds(results).drop_duplicates("trajectory_id", keep="last")
    final = last[last["trajectory_id"].isin(done)].groupby(ARM)["accuracy"].agg(["mean", "std"])
    areas = aulc_table(results).rename(columns={"mean": "aulc"}).set_index(ARM)[["aulc", "difference", "p_holm"]]
    final = final.rename(columns={"mean": "accuracy", "std": "sd"})
    rows = share_full(counts.join(final).join(areas).reset_index())
    rows["bound"] = rows["strategy"] == FULL
    order = [*CELL, "bound", "aulc", "strategy"]
    rows = rows.sort_values(order, ascending=[True, True, True, True, False, True], kind="stable", ignore_index=True)
    return rows.drop(columns="bound")


def results_table(results: pd.DataFrame) -> Table:
    """`summary` as a rich table that fits 80 columns: long names go on in the next line, numbers never do.

    One block per (dataset, learner, protocol), their columns aligned; then what the marks in them mean.
    """
    from rich.table import Table
    from rich.text import Text

    rows = summary(results)
    columns = _columns(rows)
    widths = [max(map(len, (header, *values))) for header, values in columns.items()]
    outer = Table.grid(expand=False)
    for _, cell in rows.groupby(CELL, sort=True):
        outer.add_row(_block(cell, columns, widths))
    if rows.empty:
        outer.add_row("no results yet")
    for mark, meaning in MARKS.items():
        if any(mark in value for values in columns.values() for value in values):
            outer.add_row(Text(f"{mark} {meaning}"))
    return outer


def _columns(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Header -> texts of the number columns, in the order of `rows`; failures only if there are any."""
    columns: dict[str, list[str]] = {
        "done": [f"{done}/{total}" for done, total in zip(rows["done"], rows["total"], strict=True)],
        "failed": [str(failed or "") for failed in rows["failed"]],
        "rounds": [str(rounds) for rounds in rows["rounds"]],
        "labels": [f"{labels:,}" for labels in rows["labels"]],
        "accuracy": [_accuracy(mean, sd) for mean, sd in zip(rows["accuracy"], rows["sd"], strict=True)],
        "AULC": [_number(area, "{:.4f}") for area in rows["aulc"]],
        "to random": [_difference(gap, p) for gap, p in zip(rows["difference"], rows["p_holm"], strict=True)],
    }
    if not any(columns["failed"]):
        del columns["failed"]
    return columns


def _block(cell: pd.DataFrame, columns: dict[str, list[str]], widths: list[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(" · ".join(str(cell[key].iloc[0]) for key in CELL), no_wrap=True, overflow="ellipsis")
    block = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    block.add_column("strategy", overflow="fold")
    for header, width in zip(columns, widths, strict=True):
        block.add_column(header, justify="right", no_wrap=True, min_width=width)
    for index, name in zip(cell.index, cell["strategy"], strict=True):
        block.add_row(Text(name), *(Text(values[index]) for values in columns.values()))
    return block


def _number(value: float, form: str) -> str:
    return "" if np.isnan(value) else form.format(value)


def _accuracy(mean: float, sd: float) -> str:
    """Mean and standard deviation; without the latter its place is kept, so that the means line up."""
    return _number(mean, "{:.4f}") + (_number(sd, " ±{:.4f}") or " " * 8)


def _difference(value: float, p: float) -> str:
    """The signed difference; without a star its place is kept, so that the digits line up."""
    return "" if np.isnan(value) else f"{value:+.4f}{'*' if p < 0.05 else ' '}"
