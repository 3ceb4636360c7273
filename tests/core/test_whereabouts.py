"""Where an error is said to have arisen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ray_al.core.query import PoolQuery, check_selection
from ray_al.core.whereabouts import told, whereabouts


def caught(act: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011
        act()
    return found.value


def mine() -> float:
    return 1 / 0


LINE = mine.__code__.co_firstlineno + 1


def test_the_line_of_the_fault_is_told() -> None:
    assert told(caught(mine)) == f"ZeroDivisionError: division by zero (test_whereabouts.py:{LINE}, in mine)"


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda: np.linalg.inv(np.zeros((2, 2))), id="site-packages"),
        pytest.param(lambda: json.loads("{"), id="standard library"),
        pytest.param(lambda: PoolQuery(np.zeros((2, 2))), id="ray_al"),
    ],
)
def test_frames_of_libraries_are_passed_over(act: Callable[[], Any]) -> None:
    assert whereabouts(caught(act)) == f"test_whereabouts.py:{act.__code__.co_firstlineno}, in <lambda>"


def test_briefly_told_is_the_first_line() -> None:
    def act() -> None:
        raise RuntimeError("\n  CUDA error: " + "x" * 600 + "\nand much more")

    text = told(caught(act), brief=True)
    assert text.startswith("RuntimeError: CUDA error: xxx")
    assert text.endswith(f"x (test_whereabouts.py:{act.__code__.co_firstlineno + 1}, in act)")
    assert len(text) < 600


def test_where_all_frames_are_ours_the_innermost_is_told() -> None:
    error = caught(lambda: check_selection(None, unlabeled=np.arange(3), budget=1, classes=2))  # type: ignore[arg-type]
    assert error.__traceback__
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    assert whereabouts(error).endswith(", in check_selection")
    assert whereabouts(error).startswith("query.py:")


def test_an_error_that_arrives_wrapped_is_told_as_itself() -> None:
    error = caught(mine)
    error.cause = KeyError("x")  # type: ignore[attr-defined]
    assert told(error) == f"KeyError: 'x' (test_whereabouts.py:{LINE}, in mine)"
    assert told(ValueError("no traceback")) == "ValueError: no traceback"
