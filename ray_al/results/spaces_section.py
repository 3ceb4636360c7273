"""The report's section on spaces of few dimensions: what they look like, and how well labeled sets cover them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ray_al.results.covering import RADIUS
from ray_al.results.figure import INK, PALETTE, canvas, end_label, shorten, to_svg
from ray_al.results.page import Column, html_table, number, section
from ray_al.results.plots import learning_curve_figures

_HEIGHT = 360.0  # px of a scatter plot
DOTS: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 2.6, "markeredgewidth": 0, "alpha": 0.6}
_NAMED = len(PALETTE)  # classes beyond that share colors and get no names


@dataclass(frozen=True)
class Agreement:
    """How well k-means with as many clusters as classes finds the classes of a space: normalized mutual information."""

    dataset: str
    space: str
    dims: int
    rows: int  # that were clustered
    nmi: float  # of the tightest of several starts
    mean: float  # over the starts
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Scatter:
    """A sample of a space's rows along its first two principal components."""

    dataset: str
    space: str
    points: np.ndarray  # (n, 2)
    labels: np.ndarray  # (n,) classes
    names: Sequence[str]  # of the classes
    share: float  # of the variance that the plot shows


@dataclass(frozen=True, eq=False)
class SpaceFacts:
    """What the section shows. `radii` has the columns of the results; learner is the name of the space."""

    scatters: Sequence[Scatter] = ()
    agreements: Sequence[Agreement] = ()
    radii: pd.DataFrame = field(default_factory=pd.DataFrame)
    starts: int = 0  # of k-means


def spaces_section(facts: SpaceFacts) -> str:
    """The section as HTML."""
    body = _figures([_scatter_svg(scatter) for scatter in facts.scatters])
    columns = [
        Column("dataset", lambda row: row.dataset, numeric=False),
        Column("space", lambda row: row.space, numeric=False),
        Column("dimensions", lambda row: number(row.dims, 0)),
        Column("NMI", lambda row: number(row.nmi, 3), note="of the start with the least inertia"),
        Column("mean", lambda row: number(row.mean, 3), note="over all starts"),
        Column("range", lambda row: f"{row.low:.3f} to {row.high:.3f}"),
        Column("rows", lambda row: number(row.rows, 0)),
    ]
    if facts.agreements:
        body += (
            f'<p class="lead">k-means with as many clusters as there are classes, {facts.starts} starts: normalized '
            "mutual information of clusters and classes (divided by the mean of their entropies).</p>\n"
        )
        body += html_table(facts.agreements, columns)
    if len(facts.radii):
        body += (
            '<p class="lead">Covering radius: the largest distance from a pool item to its nearest labeled item, in '
            "the space where the strategy selects, which is the second name. Mean over seeds, the first few where all "
            "would take long; in a large pool, of a sample of its items.</p>\n"
        )
        body += _figures(list(learning_curve_figures(facts.radii, RADIUS).values()))
    lead = "Pool items along the first two principal components of each space of few dimensions, colored by class."
    return section("spaces", "Spaces", body, lead)


def _figures(svgs: Sequence[str]) -> str:
    return '<div class="figures">\n' + "".join(f"<figure>\n{svg}</figure>\n" for svg in svgs) + "</div>\n"


def _scatter_svg(scatter: Scatter) -> str:
    title = (scatter.dataset, scatter.space, f"{scatter.share:.0%} of the variance")
    classes = np.unique(scatter.labels)
    with canvas(_HEIGHT, f"scatter {title}") as (figure, axes):
        for label in classes.tolist():
            own = scatter.points[scatter.labels == label]
            axes.plot(*own.T, color=_color(label), gid=f"arm-{label}-points", **DOTS)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second")
        axes.set_aspect("equal", adjustable="datalim")
        axes.apply_aspect()  # before heights are taken: it changes the limits
        low, high = axes.get_ylim()
        lines = [(f"class {shorten(scatter.names[label], 12)}", _color(label), label) for label in classes.tolist()]
        if len(lines) > _NAMED:
            lines[_NAMED:] = [(f"and {len(lines) - _NAMED} more", INK, -1)]
        for place, (name, color, label) in enumerate(lines):
            height = high - (place + 0.5) * (high - low) / (_NAMED + 1)
            end_label(axes, height, name, color, indent=10, gid=f"arm-{label}-name" if label >= 0 else None)
        return to_svg(figure, title)


def _color(label: int) -> str:
    return PALETTE[label % len(PALETTE)]
