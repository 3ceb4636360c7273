"""The report: complete, escaped, self-contained, for every shape of sweep."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.results.page import duration, interval, number
from ray_al.results.report import write_report
from ray_al.results.report_tables import class_balance
from ray_al.results.selection import ok_rounds

EVIL = "<script>alert(\"x\")</script> & 'q' $x_1$ </style> -->"
VOID = {"meta", "link", "input", "br", "path", "use"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def headings(page: Page) -> list[str]:
    return [attrs["id"] or "" for tag, attrs in page.tags if tag == "section"]


def test_a_finished_sweep_shows_everything(sweep):
    results = sweep({"random": 0.15, "margin": 0.4, "entropy": 0.2}, full=0.97, noise=0.004)
    meta = {"path": "runs/demo", "config": "name: demo\n", "note": "a <note>", "axes": {"seed": 5}}
    page = Page(write_report(results, "demo", meta))
    assert headings(page) == ["curves", "areas", "needed", "time", "balance", "configuration", "use"]
    for part in (
        "20 of 20",
        "margin wins",
        "to 90%",
        "name: demo",
        "a <note>",
        'axes: { "seed": 5 }',
        'load_results("runs/demo")',
        "numpy",
    ):
        assert part in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4 + 1  # one cell: four metrics and the areas


def test_counts_of_a_running_sweep(rows):
    results = pd.concat(
        [rows([0.5, 0.6], seed=0), rows([0.5], seed=1), rows([0.5], seed=2, error="OOM\nlong trace", retries=2)]
    )
    page = Page(write_report(results, "demo", {"planned": 10, "rerun": "ray-al run demo.yaml"}))
    assert "1 of 10" in page.text
    assert "1 failed · 8 open" in page.text
    assert "seed 2 (round 1, 2 retries, on node-1) OOM" in page.text
    assert "long trace" in page.text
    assert "ray-al run demo.yaml" in page.text
    told = Page(write_report(results, "demo", {"planned": 10, "open": 4}))
    assert "5 of 10 1 failed · 4 open" in told.text


def test_edge_cases(rows, sweep):
    empty = rows([0.5]).iloc[:0]
    cases = {
        "no frame": pd.DataFrame(),
        "empty": empty,
        "failed only": rows([], error="boom"),
        "failed without reason": rows([0.5], error="x").assign(error=None),
        "only full": rows([0.9], [1797], strategy="full"),
        "one seed, one round": rows([0.5]),
        "no random": rows([0.5, 0.6], strategy="margin"),
        "class counts empty": rows([0.5, 0.6]).assign(class_counts=[[], []]),
        "one class": rows([0.5, 0.6], classes=1),
        "no versions": rows([0.5]).assign(versions=None, host=None, device=None),
        "odd versions": rows([0.5]).assign(versions="not json"),
        "nan metric": rows([0.5, np.nan]),
    }
    for name, results in cases.items():
        page = Page(write_report(results, name))
        assert "nan" not in page.text.replace("nan metric", "").lower().split(), name
        assert "NaT" not in page.text


def test_twelve_strategies_on_four_datasets(sweep):
    strengths = {"random": 0.1} | {f"strategy_{i}": 0.1 + 0.02 * i for i in range(11)}
    results = sweep(strengths, datasets=("a", "b", "c", "d"), seeds=2, rounds=3)
    html = write_report(results, "big")
    page = Page(html)
    assert sum(tag == "figure" for tag, _ in page.tags) == 8
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_all_text_is_escaped(rows):
    results = pd.concat([rows([0.5, 0.6], strategy=s, dataset=EVIL, seed=k) for s in ("random", EVIL) for k in (0, 1)])
    results = pd.concat([results, rows([0.5], learner=EVIL, protocol=EVIL, error=EVIL).assign(host=EVIL, device=EVIL)])
    html = write_report(results, EVIL, {EVIL: EVIL, "config": {EVIL: [EVIL]}, "path": EVIL, "rerun": EVIL})
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert EVIL in page.text
    assert "alert" not in "".join(re.findall(r"<script>(.*?)</script>", html, re.S))


@settings(max_examples=5, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60), error=st.text(max_size=400)
)
def test_any_name_and_error_make_a_page(rows, name, error):
    results = pd.concat([rows([0.5], strategy=name), rows([], strategy=name, seed=1, error=error or "?")])
    Page(write_report(results, name))


def test_nothing_is_loaded_from_outside(sweep):
    html = write_report(sweep({"random": 0.2, "margin": 0.3}, seeds=2, full=0.97), "demo")
    page = Page(html)
    for _, attrs in page.tags:
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert (attrs.get(key) or "#").startswith(("#", "data:"))
    assert "url(http" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_equal_results_give_equal_pages(sweep):
    results = sweep({"random": 0.2, "margin": 0.3}, seeds=2, rounds=3)
    assert write_report(results, "demo") == write_report(results.sample(frac=1, random_state=3), "demo")


def test_class_balance_by_hand(rows):
    results = pd.concat(
        [rows([0.5]).assign(class_counts=[c], trajectory_id=i, seed=i) for i, c in enumerate(([5, 5], [10, 0], [1, 3]))]
    ).astype({"trajectory_id": str})
    table = class_balance(ok_rounds(results))
    third = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert table["entropy"].tolist() == pytest.approx([1.0, 0.0, third])
    assert table[["rarest", "commonest"]].to_numpy().tolist() == [[0.5, 0.5], [0.0, 1.0], [0.25, 0.75]]


def test_number_formats():
    assert [duration(s) for s in (0.0123, 0.9999, 3.44, 59.99, 725, 12_000)] == [
        *("12.3 ms", "1.0 s", "3.4 s", "1 min 0 s", "12 min 5 s", "3 h 20 min")
    ]
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert number(-0.5, 2)[0] == f"{minus}0.50"
    assert number(np.nan)[0] == dash
    assert interval(0.5, 0.4, 0.6)[0] == "0.5000 [0.4000, 0.6000]"
    assert interval(0.5, np.nan, np.nan, sign=True)[0] == "+0.5000"
