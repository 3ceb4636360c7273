"""The report of a sweep: one HTML page that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from ray_al.results.page import Column, document, duration, html_table, section
from ray_al.results.plots import METRIC_NAMES, learning_curve_figures
from ray_al.results.report_tables import areas, balance, failures, needed, times
from ray_al.results.schema import SCHEMA
from ray_al.results.selection import ARM, CELL, FULL, ok_rounds, share_full, trajectories
from ray_al.results.spaces_section import SpaceFacts, spaces_section
from ray_al.results.statistics import Verdict, best

TOGGLES = ("accuracy", "balanced_accuracy", "macro_f1", "nll")
MAX_FIGURES = 48  # beyond this, only the curves of accuracy are drawn
OWN_KEYS = ("planned", "open", "path", "rerun", "config")


def write_report(
    results: pd.DataFrame, title: str, meta: Mapping[str, Any] | None = None, spaces: SpaceFacts | None = None
) -> str:
    """The page as text. Equal arguments give equal text.

    Args:
        results: one row per trajectory and round; may be empty, or lack rounds of a sweep that is running.
        title: the sweep's name.
        meta: shown under "Configuration", except for the keys that the page uses itself:
            planned (int): trajectories of the grid; open (int): how many of them are neither done nor failed;
            path (str): the sweep's folder; rerun (str): the command that goes on with the sweep;
            config (str or mapping): the sweep file.
        spaces: what was measured of the sweep's spaces, for a section of its own.

    Raises:
        ValueError: two trajectories have the same names and seed.
    """
    meta = dict(meta or {})
    if results.empty:
        results = SCHEMA.empty_table().to_pandas()
    table, rows = trajectories(results), ok_rounds(results)
    measured = results[[*ARM, "seed", "trajectory_id", "round", "labels", "status", *METRIC_NAMES]]  # without the lists
    shown = share_full(rows[ARM].drop_duplicates())
    names = [key for key in CELL if shown[key].nunique() > 1] + ["strategy"]
    parts = [
        _headline(title, table, rows, meta),
        _curves(measured, rows),
        areas(measured, table, names),
        needed(measured, names),
        times(rows, names),
        balance(rows, names),
        spaces_section(spaces) if spaces else "",
        failures(results, str(meta.get("rerun", ""))),
        _configuration(results, meta),
        _usage(results, title, meta),
    ]
    return document(f"{title} · ray-al", "".join(parts))


def _headline(title: str, table: pd.DataFrame, rows: pd.DataFrame, meta: Mapping[str, Any]) -> str:
    """Title and tiles: what ran, how far it is, and what it took."""
    counts = table["state"].value_counts()
    failed = int(counts.get("failed", 0))
    planned = int(meta.get("planned", len(table)))
    unfinished = int(meta.get("open", counts.get("open", 0) + max(planned - len(table), 0)))
    seconds = {key: float(rows[f"seconds_{key}"].sum()) for key in ("fit", "select", "eval")}
    wall = " · ".join(f"{key} {duration(value)}" for key, value in seconds.items())
    competing = table.loc[table["strategy"] != FULL, "strategy"]
    bound = ["the upper bound full"] if FULL in set(table["strategy"]) else []
    done = f"{max(planned - failed - unfinished, 0):,} of {planned:,}"
    state = f'<span class="{"bad" if failed else "soft"}">{failed:,} failed</span> · {unfinished:,} open'
    tiles = [
        ("trajectories done", done, state),
        ("datasets", f"{table['dataset'].nunique():,}", escape(_some(table["dataset"]))),
        ("learners", f"{table['learner'].nunique():,}", escape(_some(table["learner"]))),
        (
            "strategies",
            f"{competing.nunique():,}",
            escape("; ".join([*([_some(competing)] if len(competing) else []), *bound])),
        ),
        ("seeds", f"{table['seed'].nunique():,}", f"rounds in all: {len(rows):,}"),
        ("labels paid", f"{_paid(rows):,}", "annotations, all trajectories"),
        ("time in rounds", duration(sum(seconds.values())), wall),
    ]
    if saved := int(rows["fit_shared"].fillna(False).sum()):
        tiles.append(("fits saved", f"{saved:,}", "first fits that another trajectory had done"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{big}<small>{small}</small></dd></div>\n" for name, big, small in tiles)
    subtitle = "Active-learning sweep, run with ray-al."
    return f'<h1>{escape(title)}</h1>\n<p class="soft">{subtitle}</p>\n<dl class="tiles">\n{cells}</dl>\n'


def _paid(rows: pd.DataFrame) -> int:
    """Annotations of all trajectories: what each had paid in its last round, or in every draw where all start anew."""
    alone = rows["asked_ids"].map(len) == rows["labels"]  # nothing was labeled before
    anew = alone.groupby(rows["trajectory_id"]).transform("all")
    last = ~rows.duplicated("trajectory_id", keep="last")
    return int(rows.loc[anew | last, "labels"].sum())


def _some(names: pd.Series, limit: int = 6) -> str:
    """The distinct names, or the first few and how many more."""
    distinct = sorted(set(names))
    rest = f" and {len(distinct) - limit} more" if len(distinct) > limit else ""
    return ", ".join(distinct[:limit]) + rest


def _curves(results: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Figures of every cell, a switch between metrics that works without a script, and the verdicts."""
    if rows.empty:
        return section("curves", "Learning curves", "<p>No round is finished yet.</p>\n")
    verdicts = {(v.dataset, v.learner, v.protocol): v for v in best(results)}
    cells = len(share_full(rows[ARM].drop_duplicates())[CELL].drop_duplicates())
    metrics = [m for m in TOGGLES if rows[m].notna().any()] or ["accuracy"]
    metrics = metrics if cells * len(metrics) <= MAX_FIGURES else metrics[:1]
    figures: dict[tuple[str, str, str], str] = {}
    for metric in metrics:
        for cell, svg in learning_curve_figures(results, metric).items():
            figures[cell] = figures.get(cell, "") + f'<div class="m-{metric}">{svg}</div>\n'
    body = "".join(
        f"<figure>\n{svgs}<figcaption>{_verdict(verdicts.get(cell))}</figcaption>\n</figure>\n"
        for cell, svgs in figures.items()
    )
    lead = (
        "Mean over seeds at each number of labels; bands are 95% t-intervals of the mean. Strategies are named at the "
        "end of their lines, in the order of their final values. The verdicts are about the area under the accuracy "
        "curve."
    )
    return section("curves", "Learning curves", f'{_switch(metrics)}<div class="figures">\n{body}</div>\n', lead)


def _switch(metrics: list[str]) -> str:
    """Radio buttons before the figures: a rule per metric hides the others'."""
    if len(metrics) == 1:
        return ""
    inputs = labels = rules = ""
    for metric in metrics:
        checked = " checked" if metric == metrics[0] else ""
        inputs += f'<input class="pick" type="radio" name="metric" id="show-{metric}"{checked}>\n'
        labels += f'<label for="show-{metric}">{METRIC_NAMES[metric]}</label>\n'
        mine = f"#show-{metric}"
        rules += f"{mine}:not(:checked)~.figures .m-{metric}{{display:none}}"
        rules += f"{mine}:checked~.choice [for=show-{metric}]{{background:var(--ink);color:var(--page)}}"
        rules += f"{mine}:focus-visible~.choice [for=show-{metric}]{{outline:2px solid var(--accent)}}"
    return f'<style>{rules}</style>\n{inputs}<div class="choice">\n{labels}</div>\n'


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return '<span class="soft">no complete trajectories to compare yet</span>'
    head = f"{verdict.winner} wins" if verdict.winner else "no winner"
    kind, rest = "good" if verdict.winner else "soft", verdict.text.removeprefix(head)
    return f'<b class="{kind}">{escape(head)}</b>{escape(rest)}'


def _configuration(results: pd.DataFrame, meta: Mapping[str, Any]) -> str:
    """The sweep file, what else the caller knows, and where and with which versions the rounds ran."""
    others = {str(key): value for key, value in meta.items() if key not in OWN_KEYS}
    nested = {key: value for key, value in others.items() if isinstance(value, Mapping | list | tuple) and value}
    facts = {key: str(value) for key, value in others.items() if key not in nested}
    for key in ("host", "device"):
        facts[f"{key}s"] = ", ".join(sorted(set(results[key].dropna().astype(str)) - {""}))
    facts |= {f"version of {name}": value for name, value in _versions(results["versions"]).items()}
    columns = [Column("", lambda fact: fact[0], numeric=False), Column("", lambda fact: fact[1], numeric=False)]
    known = [fact for fact in facts.items() if fact[1]]
    body = "".join(f"<p>{escape(key)}:</p>\n{_block(value)}" for key, value in nested.items())
    body = (_block(meta["config"]) if meta.get("config") else "") + body
    body += html_table(known, columns) if known else ""
    return section("configuration", "Configuration and versions", body or "<p>Nothing was recorded yet.</p>\n")


def _block(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return f"<pre>{escape(text)}</pre>\n"


def _versions(column: pd.Series) -> dict[str, str]:
    """Package -> version, or all of them where rows differ. What is not a JSON mapping is shown as it is."""
    found: dict[str, set[str]] = {}
    for text in column.dropna().unique():
        try:
            entries = json.loads(text)
        except ValueError:
            entries = None
        for name, value in (entries if isinstance(entries, dict) else {"software": text}).items():
            found.setdefault(str(name), set()).add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in sorted(found.items())}


def _usage(results: pd.DataFrame, title: str, meta: Mapping[str, Any]) -> str:
    """How to go on in pandas, and how to cite."""
    path = str(meta.get("path", title))
    code = f"import ray_al\n\nresults = ray_al.load_results({json.dumps(path)})  # one row per trajectory and round\n"
    code += "results.groupby(['dataset', 'strategy', 'labels'])['accuracy'].agg(['mean', 'std', 'count'])"
    version = _versions(results["versions"]).get("ray-al", "")
    cite = "@software{ray_al,\n  title = {ray-al: grids of active-learning experiments on Ray},\n"
    cite += f"  version = {{{version}}},\n" if version else ""
    cite += f"  note = {{sweep {title}}}\n}}"
    return section(
        "use",
        "Use these results",
        f"<p>In pandas:</p>\n<pre>{escape(code)}</pre>\n<p>To cite:</p>\n<pre>{escape(cite)}</pre>\n",
    )
