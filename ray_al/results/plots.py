"""Learning curves and areas as inline SVG, one figure per (dataset, learner, protocol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ray_al.results.figure import (
    BOTTOM,
    GRAY,
    INK,
    LEFT,
    PALETTE,
    RIGHT,
    STYLES,
    TOP,
    WIDTH,
    canvas,
    end_label,
    label_ends,
    shorten,
    to_svg,
)
from ray_al.results.selection import CELL, FULL
from ray_al.results.statistics import LOWER_IS_BETTER, REFERENCE, aulc_table, learning_curves

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "negative log-likelihood (nats)",
    "ece": "expected calibration error",
}
Names = tuple[str, str, str]  # dataset, learner, protocol
Styles = Mapping[str, tuple[str, Any, int]]  # strategy -> color, line style, number


def strategy_styles(strategies: Sequence[str]) -> Styles:
    """Color and line style per strategy, the same in every figure of a sweep. `random` is gray, `full` dashed."""
    others = sorted(set(strategies) - {REFERENCE, FULL})
    styles = {name: (PALETTE[i % len(PALETTE)], STYLES[i // len(PALETTE) % 3], i) for i, name in enumerate(others)}
    return styles | {REFERENCE: (GRAY, "-", len(others)), FULL: (INK, (0, (4, 3)), len(others) + 1)}


def learning_curve_figures(results: pd.DataFrame, metric: str = "accuracy") -> dict[Names, str]:
    """Means with 95% bands over labels; the strategy's name at the end of its line; `full` as a dashed level."""
    curves = learning_curves(results, metric)
    styles = strategy_styles(curves["strategy"].unique().tolist())
    return {cell_names(cell): _curves_svg(cell, metric, styles) for _, cell in curves.groupby(CELL, sort=True)}


def aulc_figures(results: pd.DataFrame, metric: str = "accuracy") -> dict[Names, str]:
    """Mean areas with 95% intervals, best on top; a thin line marks `random`. Cells with complete trajectories only."""
    table = aulc_table(results, metric)
    styles = strategy_styles(results["strategy"].astype(str).unique().tolist())
    return {cell_names(cell): _areas_svg(cell, metric, styles) for _, cell in table.groupby(CELL, sort=True)}


def cell_names(table: pd.DataFrame) -> Names:
    """The names of the one cell that `table` is about."""
    dataset, learner, protocol = (str(table[key].iloc[0]) for key in CELL)
    return dataset, learner, protocol


def _curves_svg(curves: pd.DataFrame, metric: str, styles: Styles) -> str:
    lines = {str(name): line for name, line in curves.groupby("strategy", sort=True)}
    bounds = lines.pop(FULL, curves.iloc[:0])
    labels = pd.concat(list(lines.values()))["labels"] if lines else bounds["labels"]
    title = _title(curves)
    height = TOP + BOTTOM + max(226.0, 14.0 * (len(lines) + 1))
    with canvas(height, f"curves {title} {metric}") as (figure, axes):
        for name, line in lines.items():
            _draw_curve(axes, line, *styles[name])
        if not lines:
            axes.plot(bounds["labels"], bounds["mean"], color=INK, marker="o", markersize=4, linestyle="")
        for level in bounds["mean"]:
            axes.axhline(
                level,
                color=styles[FULL][0],
                linestyle=styles[FULL][1],
                linewidth=1.1,
                gid=f"arm-{styles[FULL][2]}-line",
            )
        _label_axes(axes, labels, metric)
        levels = [(name, line["mean"].iloc[-1]) for name, line in lines.items()]
        levels += [(FULL, level) for level in bounds["mean"]]
        ends = [(float(level), name, styles[name][0], styles[name][2]) for name, level in levels]
        label_ends(axes, [end for end in ends if np.isfinite(end[0])])
        return to_svg(figure, title)


def _draw_curve(axes: Any, line: pd.DataFrame, color: str, style: Any, number: int) -> None:
    x, mean, low, high = (line[key].to_numpy(float) for key in ("labels", "mean", "low", "high"))
    if len(x) == 1:
        axes.vlines(x, low, high, color=color, linewidth=2.2, alpha=0.45, gid=f"arm-{number}-band")
    else:
        axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0, gid=f"arm-{number}-band")
    marker = "o" if len(x) <= 12 else ""
    look = {"linewidth": 1.6, "marker": marker, "markersize": 2.8, "solid_joinstyle": "round"}
    axes.plot(x, mean, color=color, linestyle=style, gid=f"arm-{number}-line", **look)


def _label_axes(axes: Any, labels: pd.Series, metric: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    one = labels.nunique() == 1
    axes.xaxis.set_major_locator(FixedLocator([int(labels.iloc[0])]) if one else MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("labels (annotations paid)")
    axes.set_ylabel(METRIC_NAMES.get(metric, metric))
    axes.yaxis.set_label_coords((15 - LEFT) / (WIDTH - LEFT - RIGHT), 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _areas_svg(table: pd.DataFrame, metric: str, styles: Styles) -> str:
    ranked = table.sort_values("mean", ascending=metric not in LOWER_IS_BETTER, kind="stable", na_position="first")
    title = _title(table)
    with canvas(TOP + BOTTOM + 18.0 * len(ranked), f"areas {title} {metric}", left=RIGHT, right=LEFT) as (figure, axes):
        for y, row in enumerate(ranked[["strategy", "mean", "low", "high"]].itertuples(index=False, name=None)):
            name, mean, low, high = row
            color = styles[name][0]
            axes.plot([low, high], [y, y], color=color, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
            axes.plot([mean], [y], marker="o", color=color, markersize=5.5)
            end_label(axes, y, "\N{EN DASH}" if np.isnan(mean) else f"{mean:.4f}", INK, indent=9)
        for level in ranked.loc[ranked["strategy"] == REFERENCE, "mean"].dropna():
            axes.axvline(level, color=GRAY, linewidth=0.8, zorder=0)
        axes.set_ylim(-0.7, len(ranked) - 0.3)
        axes.set_yticks(range(len(ranked)), [shorten(name, 18) for name in ranked["strategy"]], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"area under the curve of {METRIC_NAMES.get(metric, metric)}")
        return to_svg(figure, title)


def _title(table: pd.DataFrame) -> tuple[str, ...]:
    """Names of the cell and number of seeds; a range where strategies or rounds differ in it."""
    competing = table["strategy"] != FULL
    n = table.loc[competing, "n"] if competing.any() else table["n"]
    low, high = int(n.min()), int(n.max())
    seeds = f"{low} to {high} seeds" if low != high else f"{high} seeds" if high > 1 else "1 seed"
    return (*cell_names(table), seeds)
