"""Probabilities of few classes against float64, and their bits wherever a row stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import narrow
from ray_al.kernels.top_scores import linear_probs, linear_probs_of_block
from ray_al.kernels.vectors import SINGLES


def _case(seed: int, n: int, width: int, classes: int, kind: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)).astype(kind)
    x.flags.writeable = False  # as rows in shared memory are
    return x, rng.standard_normal((classes, width)).astype(np.float32), rng.standard_normal(classes).astype(np.float32)


def _probs(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), len(bias)), np.float32)
    read = narrow.reader(x, weights, bias)
    assert read is not None
    read(0, len(x), out)
    return out


def _expected(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    logits = x.astype(np.float64) @ weights.T.astype(np.float64) + bias
    found = np.exp(logits - logits.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


CASES = {
    "seed": st.integers(0, 99),
    "n": st.integers(0, 21),
    "steps": st.integers(1, 5),
    "classes": st.integers(1, narrow.MOST),
    "kind": st.sampled_from([np.float16, np.float32]),
}


@settings(deadline=None)  # the first call compiles
@given(**CASES)
def test_they_are_those_of_float64(seed: int, n: int, steps: int, classes: int, kind: type) -> None:
    case = _case(seed, n, steps * SINGLES, classes, kind)
    np.testing.assert_allclose(_probs(*case), _expected(*case), atol=2e-5)


@settings(deadline=None)
@given(**CASES, data=st.data())
def test_a_row_has_the_same_bits_wherever_it_stands(
    seed: int, n: int, steps: int, classes: int, kind: type, data: st.DataObject
) -> None:
    x, weights, bias = _case(seed, n, steps * SINGLES, classes, kind)
    whole = _probs(x, weights, bias)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=9)) if n else [], np.int64)
    assert np.array_equal(_probs(x[rows], weights, bias), whole[rows])
    assert np.array_equal(_probs(x.astype(np.float32), weights, bias), whole)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    part, read = np.empty((stop - start, classes), np.float32), narrow.reader(x, weights, bias)
    assert read is not None
    read(start, stop, part)
    assert np.array_equal(part, whole[start:stop])


def test_all_float16_numbers_are_read_as_they_are() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = bits[np.isfinite(bits)]
    x = np.zeros((len(finite), SINGLES), np.float16)
    x[np.arange(len(finite)), np.arange(len(finite)) % SINGLES] = finite
    weights, bias = np.zeros((2, SINGLES), np.float32), np.zeros(2, np.float32)
    for scale in (1.0, 1e-4, 1e7):  # one of them shows a difference of any two numbers
        weights[1] = scale
        found = _probs(x, weights, bias)
        assert np.isfinite(found).all()
        assert np.array_equal(found, _probs(x.astype(np.float32), weights, bias))
        np.testing.assert_allclose(found, _expected(x, weights, bias), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rows_that_are_not_finite_are_named(kind: type) -> None:
    x, weights, bias = _case(0, 5000, SINGLES, 3, kind)
    x = x.copy()
    x[4321, 1] = np.nan
    with pytest.raises(ValueError, match="x is nan at row 4321, column 1"):
        linear_probs(x, weights, bias)


@pytest.mark.parametrize(
    ("width", "classes", "kind"), [(SINGLES + 1, 3, np.float16), (SINGLES, 17, np.float16), (SINGLES, 3, np.uint8)]
)
def test_others_take_the_common_way(width: int, classes: int, kind: type) -> None:
    case = _case(0, 9, width, classes, kind)
    assert narrow.reader(*case) is None
    np.testing.assert_allclose(linear_probs(*case), _expected(*case), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("committee", [False, True])
def test_a_blocks_probabilities_are_the_wholes(kind: type, committee: bool) -> None:
    x, weights, bias = _case(1, 5000, 4 * SINGLES, 6, kind)
    if committee:
        weights, bias = weights.reshape(2, 3, -1), bias.reshape(2, 3)
    whole = linear_probs(x, weights, bias)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    assert np.array_equal(linear_probs_of_block(x[1000:1777], weights, bias), whole[1000:1777])
