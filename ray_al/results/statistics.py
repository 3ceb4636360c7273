"""Statistics of a sweep: learning curves, areas, labels to an accuracy, paired tests. Definitions: docs/results.md.

Every function takes the results frame (one row per trajectory and round) and pairs by seed, never by row order.
A *cell* is one (dataset, learner, protocol); strategies are compared only within a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # all of scipy.stats would take half a second to import

from ray_al.results.selection import ARM, CELL, FULL, complete_rounds, ok_rounds, share_full

REFERENCE = "random"
LOWER_IS_BETTER = frozenset({"nll", "ece"})
TARGET_SHARES = (0.90, 0.95, 0.99)
MIN_SEEDS = 5  # below this no winner is named


def summarize(values: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Mean, low, high (95% t-interval of the mean), std (n-1) and n of `column`; the last three NaN for one value.

    A NaN among the values makes the figures of its group NaN: it is never skipped.
    """
    groups = values.groupby(list(by), sort=True)[column]
    mean, std = groups.mean(), groups.std(ddof=1)
    n = groups.size()
    broken = groups.count() < n
    mean, std = mean.mask(broken), std.mask(broken)
    half = stdtrit(np.maximum(n - 1, 1), 0.975) * std / np.sqrt(n)
    table = pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "std": std, "n": n})
    return table.astype({"n": "int64"}).reset_index()


def learning_curves(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Per (dataset, learner, protocol, strategy, labels): mean, low, high, std, n over the seeds that got there.

    `full` is one row in each cell of its dataset and learner, whatever its own protocol. low and high bound the mean
    with 95% confidence (t-distribution over seeds); with one seed they are NaN.

    Rounds of trajectories that are still open or failed later count; n says how many seeds a point has.
    """
    curves = share_full(summarize(ok_rounds(results), [*ARM, "labels"], metric))
    return curves.sort_values([*ARM, "labels"], kind="stable", ignore_index=True)


def aulc(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Per trajectory of `complete_rounds`: names, seed, trajectory_id, aulc.

    aulc is the area under the learning curve by the trapezoid rule over labels, divided by the range of labels: a mean
    of the metric, in [0, 1] for accuracy. With one round it is the metric itself.
    """
    rows = complete_rounds(results)  # sorted: each trajectory's rounds lie together, in order
    first = ~rows.duplicated("trajectory_id").to_numpy()
    table = rows.loc[first, [*ARM, "seed", "trajectory_id"]].reset_index(drop=True)
    if table.empty:
        return table.assign(aulc=pd.Series(dtype=float))
    x, y = rows["labels"].to_numpy(float), rows[metric].to_numpy(float)
    pieces = np.r_[0.0, np.diff(x) * (y[1:] + y[:-1]) / 2]
    pieces[first] = 0.0  # a piece reaches back to the round before, which here is another trajectory's
    starts = np.flatnonzero(first)
    width = x[np.r_[starts[1:], len(x)] - 1] - x[starts]  # (n,) range of labels
    return table.assign(aulc=np.where(width > 0, np.add.reduceat(pieces, starts) / np.maximum(width, 1), y[starts]))


def holm(p: pd.Series) -> pd.Series:
    """Holm's step-down correction of one family of p values; NaN (no test) stays NaN and does not count."""
    tested = p.dropna().sort_values(kind="stable")
    factors = np.arange(len(tested), 0, -1)  # (m,) m, m-1, ..., 1
    return (tested * factors).cummax().clip(upper=1.0).reindex(p.index)


def paired_differences(areas: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Per strategy other than `reference`: mean difference strategy - reference over the seeds that both have.

    Columns: names, difference, difference_low, difference_high (95% t-interval), pairs, p (two-sided paired t-test; NaN
    below 2 pairs), p_holm (corrected within the cell).

    Args:
        areas: as `aulc` gives it; one value per strategy and seed.
    """
    keys = [*CELL, "seed"]
    base = areas.loc[areas["strategy"] == reference, [*keys, "aulc"]]
    pairs = areas[areas["strategy"] != reference].merge(base, on=keys, suffixes=("", "_reference"), validate="m:1")
    table = summarize(pairs.assign(gap=pairs["aulc"] - pairs["aulc_reference"]), ARM, "gap")
    error = table["std"] / np.sqrt(table["n"])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = pd.Series(2 * stdtr(np.maximum(table["n"] - 1, 1), -np.abs(table["mean"] / error)), index=table.index)
    p = p.mask((table["mean"] == 0) & (table["std"] == 0), 1.0)  # 0/0: the same values in every seed
    table = table.drop(columns="std").assign(p=p)
    table["p_holm"] = table.groupby(CELL)["p"].transform(holm)
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high", "n": "pairs"}
    return table.rename(columns=names)


def aulc_table(results: pd.DataFrame, metric: str = "accuracy", reference: str = REFERENCE) -> pd.DataFrame:
    """Per (dataset, learner, protocol, strategy): mean, low, high, std, n of the area, and the columns of
    `paired_differences` to `reference` (NaN for the reference itself, and where it was not run)."""
    areas = aulc(results, metric)
    table = summarize(areas, ARM, "aulc").merge(paired_differences(areas, reference), on=ARM, how="left")
    return table.assign(pairs=table["pairs"].fillna(0).astype("int64"))


def full_level(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """The upper bound per cell: mean, low, high, std, n and labels of `full`; no row where it was not run."""
    curves = learning_curves(results, metric)
    return curves[curves["strategy"] == FULL].drop(columns="strategy").reset_index(drop=True)


def default_targets(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Per cell and share in TARGET_SHARES: target = share x level of `full`, or of the best final mean without it."""
    final = complete_rounds(results).drop_duplicates("trajectory_id", keep="last")
    best_final = final.groupby(ARM)[metric].mean().groupby(level=CELL).max()
    bound = full_level(results, metric).groupby(CELL)["mean"].max()
    level = bound.combine_first(best_final).rename("level").reset_index()
    table = level.merge(pd.DataFrame({"share": TARGET_SHARES}), how="cross")
    return table.assign(target=table["share"] * table["level"]).drop(columns="level")


def labels_to_accuracy(
    results: pd.DataFrame, targets: Sequence[float] | None = None, metric: str = "accuracy"
) -> pd.DataFrame:
    """Annotations paid in the first round at or above each target; nothing is interpolated.

    Columns: names, target, share (of the level that set a default target, else NaN), labels (median over seeds, where
    a seed that never gets there counts as infinity; NaN if the median is infinite), reached and n (seeds), saved
    (1 - labels / labels of `random`, NaN where either is). Seeds: those of `complete_rounds`.

    Raises:
        ValueError: for a metric where lower is better.
    """
    if metric in LOWER_IS_BETTER:
        raise ValueError(f"labels_to_accuracy needs a metric where higher is better, got {metric!r}")
    rows = complete_rounds(results)
    if targets is None:
        goals = default_targets(results, metric)
    else:
        wanted = pd.DataFrame({"share": np.nan, "target": list(dict.fromkeys(targets))})
        goals = rows[CELL].drop_duplicates().merge(wanted, how="cross")
    seeds = rows[[*ARM, "seed"]].drop_duplicates().merge(goals, on=CELL)
    hits = rows.merge(goals, on=CELL)
    hits = hits[hits[metric] >= hits["target"]]
    hits = hits.groupby([*ARM, "seed", "target"])["labels"].min().reset_index()
    seeds = seeds.merge(hits, on=[*ARM, "seed", "target"], how="left")
    seeds["needed"] = seeds["labels"].fillna(np.inf)
    groups = seeds.groupby([*ARM, "target", "share"], dropna=False)
    table = groups.agg(labels=("needed", "median"), reached=("labels", "count"), n=("needed", "size")).reset_index()
    table["labels"] = table["labels"].replace(np.inf, np.nan)
    base = table.loc[table["strategy"] == REFERENCE, [*CELL, "target", "labels"]]
    table = table.merge(base, on=[*CELL, "target"], how="left", suffixes=("", "_random"))
    return table.assign(saved=1 - table["labels"] / table["labels_random"]).drop(columns="labels_random")


@dataclass(frozen=True)
class Verdict:
    """What may be said about one cell. `winner` is None unless the evidence names one; `text` says it in a sentence."""

    dataset: str
    learner: str
    protocol: str
    winner: str | None
    text: str


def best(results: pd.DataFrame, metric: str = "accuracy") -> list[Verdict]:
    """One verdict per cell on the area under the learning curve.

    A winner has the best mean area, at least MIN_SEEDS seeds paired with `random` and with the runner-up, and a
    Holm-corrected p < .05 in its favor against both: against `random` as in `aulc_table`, against the runner-up among
    the paired tests of the leader with every other strategy.
    """
    areas = aulc(results, metric)
    verdicts = []
    for _, cell in areas.groupby(CELL, sort=True):
        dataset, learner, protocol = (str(cell[key].iloc[0]) for key in CELL)
        verdicts.append(Verdict(dataset, learner, protocol, *_judge(cell, metric)))
    return verdicts


def _judge(areas: pd.DataFrame, metric: str) -> tuple[str | None, str]:
    """Winner (or None) and sentence for the areas of one cell."""
    ranked = areas.groupby("strategy")["aulc"].agg(lambda values: values.mean(skipna=False))
    ranked = ranked.sort_values(ascending=metric in LOWER_IS_BETTER, kind="stable", na_position="first")
    leader = str(ranked.index[0])
    if ranked.isna().any():
        return None, f"no winner: {metric} of {leader} is not a number in some rounds"
    if len(ranked) == 1:
        return None, f"no winner: {leader} is the only strategy with complete trajectories"
    if REFERENCE not in ranked.index:
        return None, f"no winner: {leader} leads, but {REFERENCE} was not run to compare with"
    if leader == REFERENCE:
        return None, f"no winner: no strategy has a better area than {REFERENCE}"
    tests = [(REFERENCE, *_gain(paired_differences(areas), leader))]
    runner_up = str(ranked.index[1])
    if runner_up != REFERENCE:
        gain, pairs, p = _gain(paired_differences(areas, leader), runner_up)
        tests.append((f"the runner-up {runner_up}", -gain, pairs, p))
    sign = -1 if metric in LOWER_IS_BETTER else 1
    lead = f"area {ranked.iloc[0]:.4f}; " + ", ".join(
        f"{gain:+.4f} against {other} ({format_p(p)}, {pairs} seeds)" for other, gain, pairs, p in tests
    )
    if (fewest := min(pairs for _, _, pairs, _ in tests)) < MIN_SEEDS:
        return None, f"no winner: fewer than {MIN_SEEDS} paired seeds ({fewest}). {leader} leads: {lead}"
    if not all(sign * gain > 0 and p < 0.05 for _, gain, _, p in tests):
        return None, f"no winner: difference within noise. {leader} leads: {lead}"
    return leader, f"{leader} wins: {lead}"


def _gain(differences: pd.DataFrame, strategy: str) -> tuple[float, int, float]:
    """Difference, pairs and corrected p of one strategy; no row means no shared seed."""
    row = differences[differences["strategy"] == strategy]
    if row.empty:
        return np.nan, 0, np.nan
    return float(row["difference"].iloc[0]), int(row["pairs"].iloc[0]), float(row["p_holm"].iloc[0])


def format_p(p: float) -> str:
    """A p value as text: "p = 0.012", "p < 0.001", "p untested"."""
    return "p untested" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
