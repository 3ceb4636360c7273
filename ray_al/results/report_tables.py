"""The sections of the report that are tables: areas, labels to an accuracy, time, class balance, failures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from ray_al.results.page import NOTHING, Column, duration, html_table, interval, number, section
from ray_al.results.plots import aulc_figures
from ray_al.results.selection import ARM, CELL, FULL, share_full
from ray_al.results.statistics import aulc_table, format_p, labels_to_accuracy

MAX_FAILURES = 200


def _text(key: str) -> Column:
    return Column(key, lambda row: str(getattr(row, key)), numeric=False)


def _count(header: str, key: str, note: str = "") -> Column:
    return Column(header, lambda row: number(float(getattr(row, key)), 0), note=note)


def _seconds(header: str, key: str, note: str = "") -> Column:
    return Column(header, lambda row: (duration(getattr(row, key)), float(getattr(row, key))), note=note)


def areas(results: pd.DataFrame, trajectories: pd.DataFrame, names: Sequence[str]) -> str:
    """Dot plots and table of the areas, and what was left out of them."""
    table = aulc_table(results).sort_values([*CELL, "mean"], ascending=[True, True, True, False], kind="stable")
    if table.empty:
        return section("areas", "Area under the learning curve", "<p>No complete trajectories yet.</p>\n")
    competing = trajectories[trajectories["strategy"] != FULL]
    left_out = int((~competing["common"]).sum())
    lead = (
        "The area under the accuracy curve over the labels paid, divided by the range of labels: the mean accuracy on "
        "the way. Brackets are 95% t-intervals; differences to <code>random</code> are paired by seed; p is that of a "
        "two-sided paired t-test, corrected after Holm within each dataset, learner and protocol."
    )
    if left_out:
        lead += (
            f" Left out: {left_out:,} of {len(competing):,} trajectories that are not complete on the common labels."
        )
    columns = [
        *(_text(name) for name in names),
        Column("area", lambda row: interval(row.mean, row.low, row.high)),
        _count("seeds", "n"),
        Column("to random", lambda row: interval(row.difference, row.difference_low, row.difference_high, sign=True)),
        _count("pairs", "pairs", "seeds that this strategy and random share"),
        Column("p", lambda row: _p(row.p)),
        Column("p (Holm)", lambda row: _p(row.p_holm)),
    ]
    figures = "".join(f"<figure>\n{svg}</figure>\n" for svg in aulc_figures(results).values())
    body = f'<div class="figures">\n{figures}</div>\n' + html_table(table.itertuples(), columns)
    return section("areas", "Area under the learning curve", body, lead)


def _p(p: float) -> tuple[str, float]:
    return NOTHING if np.isnan(p) else format_p(p).removeprefix("p ").removeprefix("= "), p


def needed(results: pd.DataFrame, names: Sequence[str]) -> str:
    """Annotations to reach a target: a row per arm, and for each target the labels and what they save."""
    table = labels_to_accuracy(results)
    if table.empty:
        return section("needed", "Labels to reach an accuracy", "<p>No complete trajectories yet.</p>\n")
    lead = (
        "Annotations paid in the first round at or above a share of the accuracy of <code>full</code>, or of the best "
        "final mean where <code>full</code> was not run: the level. Median over seeds; a seed that never gets there "
        "counts as infinity, and in brackets stands how many got there if not all did. Saved: against "
        "<code>random</code>."
    )
    shares = sorted(table["share"].unique())
    wide = table[ARM].drop_duplicates()
    for i, share in enumerate(shares):
        part = table[table["share"] == share].drop(columns="share").set_index(ARM).add_suffix(f"_{i}")
        wide = wide.merge(part.reset_index(), on=ARM)
    wide = wide.assign(level=wide["target_0"] / shares[0])
    wide = wide.sort_values([*CELL, "labels_0", "labels_1", "strategy"], kind="stable")
    columns = [*(_text(name) for name in names), Column("level", lambda row: number(row.level))]
    for i, share in enumerate(shares):
        columns += [Column(f"to {share:.0%}", partial(_labels, i=i), note=f"labels to {share:.0%} of the level")]
        columns += [Column("saved", partial(_saved, i=i), note=f"1 - labels / labels of random, at {share:.0%}")]
    return section("needed", "Labels to reach an accuracy", html_table(wide.itertuples(), columns), lead)


def _labels(row: Any, i: int) -> tuple[str, float]:
    labels, reached, n = (float(getattr(row, f"{key}_{i}")) for key in ("labels", "reached", "n"))
    text = "not reached" if np.isnan(labels) else number(labels, 0)[0]
    return text + (f" ({reached:.0f}/{n:.0f})" if 0 < reached < n else ""), labels


def _saved(row: Any, i: int) -> tuple[str, float]:
    saved = float(getattr(row, f"saved_{i}"))
    return NOTHING if np.isnan(saved) else number(100 * saved, 0)[0] + "%", saved


def times(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """Median seconds of a round and peak memory, per arm."""
    if rows.empty:
        return ""
    kinds = ("select", "fit", "eval")
    table = rows.groupby(ARM).agg(
        **{kind: (f"seconds_{kind}", "median") for kind in kinds},
        slowest=("seconds_select", "max"),
        peak=("peak_mb", "max"),
        rounds=("round", "size"),
    )
    columns = [
        *(_text(name) for name in names),
        *(_seconds(kind, kind, "median over rounds and seeds") for kind in kinds),
        _seconds("slowest select", "slowest"),
        Column("peak memory", lambda row: (number(row.peak, 0)[0] + " MB", row.peak), note="of the trial's process"),
        _count("rounds", "rounds"),
    ]
    lead = "Median wall-clock time over rounds and seeds. Trials share the machine, so times are no benchmark."
    return section("time", "Time per round", html_table(_ordered(table).itertuples(), columns), lead)


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """A table indexed by arm as rows in order, `full` among those that it bounds."""
    return share_full(table.reset_index()).sort_values(ARM, kind="stable")


def class_balance(rows: pd.DataFrame) -> pd.DataFrame:
    """Per trajectory, of all labels it has paid for: entropy, rarest and commonest (class shares).

    entropy is that of the class shares over log C: 1 = all classes equally often, 0 = one class only, NaN if C is 1.
    """
    last = rows.drop_duplicates("trajectory_id", keep="last")
    measures = [_balance_of(np.asarray(counts, float)) for counts in last["class_counts"]]
    columns = ["entropy", "rarest", "commonest"]
    return last[[*ARM, "seed"]].join(pd.DataFrame(measures, columns=columns, index=last.index, dtype=float))


def _balance_of(counts: np.ndarray) -> tuple[float, float, float]:
    if not counts.sum():
        return np.nan, np.nan, np.nan
    shares = counts / counts.sum()  # (C,)
    present = shares[shares > 0]
    entropy = -(present * np.log(present)).sum() / np.log(len(shares)) if len(shares) > 1 else np.nan
    return float(entropy), float(shares.min()), float(shares.max())


def balance(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """How evenly each strategy has asked about the classes."""
    if rows.empty:
        return ""
    table = class_balance(rows).groupby(ARM)[["entropy", "rarest", "commonest"]].mean()
    columns = [
        *(_text(name) for name in names),
        Column("entropy", lambda row: number(row.entropy, 3), note="1: all classes equally often; 0: one class only"),
        Column("rarest class", partial(_percent, key="rarest"), note="its share of the labels"),
        Column("commonest class", partial(_percent, key="commonest"), note="its share of the labels"),
    ]
    lead = (
        "Class shares of all labels paid for, the initial set included, after the last round (of one-shot draws, those "
        "of the largest); means over seeds. The entropy is divided by its maximum: 1 means all classes equally often."
    )
    return section("balance", "Class balance of the labels", html_table(_ordered(table).itertuples(), columns), lead)


def _percent(row: Any, key: str) -> tuple[str, float]:
    share = float(getattr(row, key))
    return number(100 * share, 1)[0] + "%", share


def failures(results: pd.DataFrame, rerun: str) -> str:
    """Trajectories whose last row says that they failed, with the reason, and how to run them again."""
    last = results.sort_values(["trajectory_id", "round"], kind="stable").drop_duplicates("trajectory_id", keep="last")
    failed = last[last["status"] == "failed"].sort_values([*ARM, "seed"], kind="stable")
    if failed.empty:
        return ""
    items = "".join(_failure(row) for row in failed.head(MAX_FAILURES).itertuples())
    rest = f"<p>and {len(failed) - MAX_FAILURES:,} more</p>\n" if len(failed) > MAX_FAILURES else ""
    again = "Run the sweep again: finished work is kept, and failed trajectories go on after their last good round."
    command = f"<pre>{escape(rerun)}</pre>\n" if rerun else ""
    return section("failed", f"Failed trajectories ({len(failed):,})", f"{items}{rest}<p>{again}</p>\n{command}")


def _failure(row: Any) -> str:
    error = str(row.error) if isinstance(row.error, str) and row.error else "no reason was recorded"
    first, _, more = error.strip().partition("\n")
    where = f"{row.dataset} · {row.learner} · {row.protocol} · {row.strategy} · seed {row.seed}"
    retries = f", {row.retries:.0f} retries" if row.retries > 0 else ""
    place = f"round {row.round}{retries}" + (f", on {row.host}" if isinstance(row.host, str) and row.host else "")
    head = f'<b>{escape(where)}</b> <span class="soft">({escape(place)})</span><br>'
    head += f'<span class="bad">{escape(first[:300])}</span>'
    if not more and len(first) <= 300:
        return f'<p class="failure">{head}</p>\n'
    return f'<details class="failure"><summary>{head}</summary><pre>{escape(error)}</pre></details>\n'
