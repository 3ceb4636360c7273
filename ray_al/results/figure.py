"""A small matplotlib figure as an inline <svg>: text stays text, colors follow the page, equal input gives equal bytes.

Figures are drawn 440 px wide with large letters, so that they scale up on a desk and stay legible on a phone.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

# Okabe-Ito without its yellow, then Tol's muted hues; beyond twelve, line styles tell strategies apart.
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
    *("#882255", "#999933", "#44aa99", "#aa4499", "#332288", "#661100"),
)
STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))
GRAY, INK, FAINT, GRID = "#767676", "#101010", "#6e6e6e", "#dcdcdc"
# What each color becomes on a dark page, at the same hue.
ON_DARK = (
    *("#4aa8e0", "#f0803c", "#2fc79b", "#dd94bc", "#7cc8f2", "#f0b740"),
    *("#d0709f", "#bdbd5c", "#6cc9bb", "#cf7fcf", "#9a8ff0", "#c98a6b"),
)
INK_ON_DARK = ("#9a9a9a", "#ececec", "#a6a6a6", "#3c3c3c")
DARK = dict(zip((*PALETTE, GRAY, INK, FAINT, GRID), (*ON_DARK, *INK_ON_DARK), strict=True))
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 440.0, 54.0, 132.0, 44.0, 44.0  # px; RIGHT leaves room for names at the line ends
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.parse_math": False,  # a name may contain $
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


@contextmanager
def canvas(height: float, salt: str, left: float = LEFT, right: float = RIGHT) -> Iterator[tuple[Any, Any]]:
    """A figure of WIDTH x `height` px and its axes, with no shared pyplot state; draw and export inside the context.

    The room around the axes, in px, is fixed, so that figures line up and the names at the right are never cut.
    matplotlib hashes its ids with `salt`: figures of one page must differ in it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = SETTINGS | {"svg.hashsalt": salt}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # only measured here: the browser has its own fonts
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        box = (left / WIDTH, BOTTOM / height, (WIDTH - left - right) / WIDTH, 1 - (TOP + BOTTOM) / height)
        yield figure, figure.add_axes(box)


def to_svg(figure: Any, names: Sequence[str]) -> str:
    """The figure as an <svg> element, with `names` as its title: on two lines at most, whole for screen readers."""
    height = figure.get_figheight() * 72
    title = " · ".join(names)
    short = " · ".join(shorten(name, max(16, 100 // len(names))) for name in names)
    lines = textwrap.wrap(title if len(title) <= 100 else short, 60, max_lines=2, placeholder=" …")
    figure.text(8 / WIDTH, 1 - 8 / height, "\n".join(lines), va="top", fontweight="bold", linespacing=1.25)
    out = BytesIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = out.getvalue().decode()
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]*>", lambda tag: _clean(tag[0]), svg)  # tags only: a name may look like a color or a number
    head = f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}" class="figure"'
    head += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return head + ' style="stroke-linejoin:round" font-family="sans-serif">' + re.sub(r"\s*\n\s*", "\n", svg)


def _clean(tag: str) -> str:
    """One tag without machine-made ids and fonts, with short numbers, and with colors that a page can set."""
    tag = re.sub(r' id="arm-(\d+)-\w+"', r' class="arm" data-arm="\1"', tag)
    tag = re.sub(r"(<g) id=\"[^\"]*\"|font-family: [^;\"]*;? ?| transform=\"rotate\(-0 [^\"]*\"", r"\1", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub("|".join(DARK), lambda color: f"var(--{color[0][1:]}, {color[0]})", tag)


def label_ends(axes: Any, ends: Sequence[tuple[float, str, str, int]], step: float = 14.0) -> None:
    """Write a name beside the end of each line, given as (y, name, color, number of its arm); names never overlap."""
    axes.autoscale_view()
    axes.set_autoscale_on(False)  # what follows is placed by pixel: the data limits must stay
    ends = sorted(ends)
    box, to_px = axes.get_window_extent(), axes.transData.transform
    wanted = [float(to_px((0, y))[1]) for y, *_ in ends]
    for (_, name, color, arm), target, y in zip(ends, wanted, spread(wanted, step, box.y0, box.y1), strict=True):
        line = axes.transData.inverted().transform([(box.x1 + 2, target), (box.x1 + 11, y)])
        axes.plot(*line.T, color=color, linewidth=0.8, clip_on=False, gid=f"arm-{arm}-link")
        height = axes.transData.inverted().transform((0, y))[1]
        end_label(axes, height, shorten(name, 18), color, indent=14, gid=f"arm-{arm}-name")


def end_label(axes: Any, y: float, text: str, color: str, indent: float, gid: str | None = None) -> None:
    """Text at height `y` (data), `indent` px right of the axes."""
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset pixels", "annotation_clip": False}
    axes.annotate(text, (1, y), xytext=(indent, 0), va="center_baseline", ha="left", color=color, gid=gid, **place)


def spread(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Heights at least `step` apart, nearest (least squares) to the ascending `wanted`, in low..high or up from low."""
    blocks: list[list[float]] = []  # pool adjacent violators on wanted[i] - i * step, which must not descend
    for i, y in enumerate(wanted):
        blocks.append([y - i * step])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = [float(np.mean(block)) for block in blocks for _ in block]
    top = max(low, high - (len(wanted) - 1) * step)
    return [min(max(y, low), top) + i * step for i, y in enumerate(level)]


def shorten(text: str, width: int) -> str:
    """At most `width` characters; an ellipsis stands for the middle, since names of variants differ at their ends."""
    if len(text) <= width:
        return text
    return text[: width - 1 - width // 2] + "…" + text[-(width // 2) :]
