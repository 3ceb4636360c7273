"""The terminal table: right numbers, aligned, and whole at 80 columns."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from ray_al.results.statistics import aulc_table
from ray_al.results.table import results_table, summary


def render(results: pd.DataFrame, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(results_table(results))
    return out.getvalue().splitlines()


def test_numbers(rows):
    results = pd.concat(
        [rows([0.5, v], seed=s) for s, v in enumerate((0.6, 0.8))]
        + [rows([0.7, 0.9], seed=0, strategy="margin"), rows([0.5], seed=1, strategy="margin", error="OOM")]
        + [rows([0.95], [1797], strategy="full")]
    )
    table = summary(results).set_index("strategy")
    assert table.index.tolist() == ["margin", "random", "full"]
    assert table.loc["random", ["done", "total", "failed", "rounds", "labels"]].tolist() == [2, 2, 0, 2, 20]
    assert table.loc["margin", ["done", "total", "failed"]].tolist() == [1, 2, 1]
    assert table.loc["random", "accuracy"] == pytest.approx(0.7)
    assert table.loc["random", "sd"] == pytest.approx(0.2 / 2**0.5)
    assert table.loc["margin", "difference"] == pytest.approx(0.25)
    assert table.loc["full", ["labels", "accuracy"]].tolist() == [1797, 0.95]


def test_the_table_is_whole_and_aligned_at_80_columns(sweep):
    results = sweep({"random": 0.2, "margin": 0.3, "least_confidence": 0.25}, datasets=("digits", "fashion_mnist"))
    lines = render(results)
    assert max(map(len, lines)) <= 80
    assert sum("fashion_mnist · logreg · 10+10x9" in line for line in lines) == 1
    areas = [f"{value:.4f}" for value in aulc_table(results)["mean"]]
    ends = {line.index(area) + len(area) for area in areas for line in lines if area in line.split()}
    assert len(ends) == 1
    assert sum("*" in line for line in lines[:-2]) == 4
    assert lines[-2].strip() == "± standard deviation over seeds"
    assert lines[-1].strip() == "* differs from random: paired by seed, Holm-corrected p < 0.05"


def test_numbers_stay_whole_beside_long_names(rows):
    name = "a_very_long_strategy_name_with_[brackets]_" * 3
    results = pd.concat(
        [
            rows([0.5, 0.6], dataset=d, learner=k, strategy=s)
            for d in ("d" * 40, "e")
            for k in "ab"
            for s in (name, "random")
        ]
        + [rows([0.4], dataset="e", learner="c", error="OOM")]
    )
    lines = render(results)
    assert max(map(len, lines)) <= 80
    assert sum("0.5500" in line for line in lines) == 8
    assert sum("+0.0000" in line for line in lines) == 4
    assert any("[brackets]" in line for line in render(results, width=400))


def test_edge_cases(rows):
    assert "no results yet" in "\n".join(render(rows([0.5]).iloc[:0]))
    assert "0/1" in "\n".join(render(rows([], error="OOM")))
    assert "0.9000" in "\n".join(render(rows([0.9], [1797], strategy="full")))
    assert not any(mark in line for line in render(rows([0.9])) for mark in "±*"), (
        "a legend of marks that are not there"
    )
