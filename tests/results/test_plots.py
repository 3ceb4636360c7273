"""The figures: valid SVG, text as text, equal bytes for equal results, no overlapping names."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_al.results.figure import DARK, PALETTE, shorten, spread
from ray_al.results.plots import aulc_figures, learning_curve_figures, strategy_styles

NS = "{http://www.w3.org/2000/svg}"
STRENGTHS = {"random": 0.2, "entropy": 0.25, "margin": 0.3}


def parts(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(NS + tag))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parts(svg, "text")]


def test_one_figure_per_cell_with_its_names_and_seeds(sweep):
    figures = learning_curve_figures(sweep(STRENGTHS, datasets=("digits", "mnist"), seeds=3, full=0.97))
    assert list(figures) == [("digits", "logreg", "10+10x9"), ("mnist", "logreg", "10+10x9")]
    words = texts(figures["mnist", "logreg", "10+10x9"])
    assert "mnist · logreg · 10+10x9 · 3 seeds" in words
    assert {"random", "entropy", "margin", "full", "labels (annotations paid)", "accuracy"} <= set(words)


def test_names_stand_in_the_order_of_the_final_values(sweep):
    svg = next(iter(learning_curve_figures(sweep(STRENGTHS, full=0.99, noise=0.001)).values()))
    height = {e.text: float(e.get("y", "nan")) for e in parts(svg, "text") if e.text in {*STRENGTHS, "full"}}
    assert sorted(height, key=lambda name: height[name]) == ["full", "margin", "entropy", "random"]


def test_equal_results_give_equal_bytes_and_ids_are_unique_on_a_page(sweep):
    results = sweep(STRENGTHS, datasets=("digits", "mnist"), full=0.97)
    page = [*learning_curve_figures(results).values(), *learning_curve_figures(results, "nll").values()]
    page += aulc_figures(results).values()
    again = [*learning_curve_figures(results.sample(frac=1, random_state=1)).values()]
    assert again == page[:2]
    ids = [element.get("id") for svg in page for element in ElementTree.fromstring(svg).iter() if element.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["a<b>&\"c\" 'd'", "$x_1$ and \\frac", "#0072b2 1.23456", "näme ☃", "x" * 90])
def test_any_name_is_shown_as_it_is(rows, name):
    svg = next(iter(learning_curve_figures(rows([0.5, 0.6], strategy=name, dataset=name)).values()))
    assert shorten(name, 18) in texts(svg)
    assert ElementTree.fromstring(svg).get("aria-label") == f"{name} · logreg · 10+10x9 · 1 seed"


def test_areas_show_value_and_name_best_on_top(sweep):
    svg = next(iter(aulc_figures(sweep(STRENGTHS, full=0.99, noise=0.001)).values()))
    assert [text for text in texts(svg) if text in STRENGTHS] == ["random", "entropy", "margin"]  # from the bottom up


def test_edge_cases_draw(rows):
    for results in (rows([0.5]), rows([0.9], [1797], strategy="full"), rows([0.5, 0.6])):
        assert all(parts(svg, "path") for svg in learning_curve_figures(results).values())
    assert aulc_figures(rows([0.9], [1797], strategy="full")) == {}
    assert learning_curve_figures(rows([], error="OOM")) == {}
    uneven = pd.concat([rows([0.5, 0.6], seed=0), rows([0.5], seed=1)])
    assert "1 to 2 seeds" in next(iter(learning_curve_figures(uneven).values()))


def test_strategies_keep_their_look_and_no_two_look_alike():
    styles = strategy_styles([f"s{i:02d}" for i in range(28)] + ["random", "full"])
    looks = [(color, str(style)) for color, style, _ in styles.values()]
    assert len(set(looks)) == len(looks)
    assert set(PALETTE) <= set(DARK)


@given(st.lists(st.floats(0, 300), max_size=20).map(sorted), st.floats(1, 20))
def test_spread_keeps_order_distance_and_bounds(wanted, step):
    placed = spread(wanted, step, 0, 300)
    assert all(b - a >= step - 1e-6 for a, b in pairwise(placed))
    assert all(y >= -1e-6 for y in placed)
    if (len(wanted) - 1) * step <= 300:
        assert all(y <= 300 + 1e-6 for y in placed)
    if all(b - a >= step for a, b in pairwise(wanted)) and (len(wanted) - 1) * step <= 300:
        assert placed == pytest.approx(wanted, abs=1e-6)
