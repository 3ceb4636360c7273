"""When a winner is named, and what is said when none is."""

from __future__ import annotations

import numpy as np
import pytest

from ray_al.results.statistics import best, format_p


def test_best_names_a_winner_that_beats_random_and_the_runner_up(sweep):
    verdict = best(sweep({"random": 0.15, "entropy": 0.2, "margin": 0.4}, noise=0.004))[0]
    assert verdict.winner == "margin"
    assert "against random" in verdict.text
    assert "runner-up entropy" in verdict.text


@pytest.mark.parametrize(
    ("strengths", "seeds", "reason"),
    [
        ({"random": 0.15, "margin": 0.5}, 4, "fewer than 5 paired seeds"),
        ({"random": 0.15, "margin": 0.3, "entropy": 0.3001}, 5, "within noise"),
        ({"random": 0.5, "margin": 0.1}, 5, "no strategy has a better area than random"),
        ({"entropy": 0.5, "margin": 0.1}, 5, "random was not run"),
        ({"random": 0.5}, 5, "only strategy"),
    ],
)
def test_best_says_why_there_is_no_winner(sweep, strengths, seeds, reason):
    verdict = best(sweep(strengths, seeds=seeds))[0]
    assert verdict.winner is None
    assert verdict.text.startswith("no winner: ")
    assert reason in verdict.text


def test_best_takes_the_lower_area_for_losses(sweep):
    assert best(sweep({"random": 0.15, "margin": 0.5}, noise=0.002), "nll")[0].winner == "margin"


def test_p_values_as_text():
    assert [format_p(p) for p in (0.0004, 0.0123, np.nan)] == ["p < 0.001", "p = 0.012", "p untested"]
