"""Products of few columns against float64, and their bits wherever a row stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import narrow
from ray_al.kernels.top_scores import linear_probs, linear_probs_of_block
from ray_al.kernels.vectors import SINGLES


def _case(seed: int, n: int, width: int, classes: int, kind: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)).astype(kind)
    x.flags.writeable = False  # as rows in shared memory are
    return x, rng.standard_normal((classes, width)).astype(np.float32)


CASES = {
    "seed": st.integers(0, 99),
    "n": st.integers(0, 21),
    "steps": st.integers(1, 5),
    "classes": st.integers(1, narrow.MOST),
    "kind": st.sampled_from([np.float16, np.float32]),
}


@settings(deadline=None)  # the first call compiles
@given(**CASES)
def test_products_are_those_of_float64(seed: int, n: int, steps: int, classes: int, kind: type) -> None:
    x, columns = _case(seed, n, steps * SINGLES, classes, kind)
    assert narrow.is_narrow(x, classes)
    found = narrow.products(x, columns)
    assert (found.shape, found.dtype) == ((classes, n), np.float32)
    np.testing.assert_allclose(found, columns.astype(np.float64) @ x.T.astype(np.float64), rtol=1e-5, atol=2e-5)


@settings(deadline=None)
@given(**CASES, data=st.data())
def test_a_row_has_the_same_bits_wherever_it_stands(
    seed: int, n: int, steps: int, classes: int, kind: type, data: st.DataObject
) -> None:
    x, columns = _case(seed, n, steps * SINGLES, classes, kind)
    whole = narrow.products(x, columns)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=9)) if n else [], np.int64)
    assert np.array_equal(narrow.products(x[rows], columns), whole[:, rows])
    some = slice(data.draw(st.integers(0, classes - 1)), None)
    assert np.array_equal(narrow.products(x, columns[some]), whole[some])
    assert np.array_equal(narrow.products(x.astype(np.float32), columns), whole)


def test_all_float16_numbers_are_read_as_they_are() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = bits[np.isfinite(bits)]
    x = np.zeros((len(finite), SINGLES), np.float16)
    x[np.arange(len(finite)), np.arange(len(finite)) % SINGLES] = finite
    assert np.array_equal(narrow.products(x, np.ones((1, SINGLES), np.float32))[0], finite.astype(np.float32))
    x = np.full((1, SINGLES), np.inf, np.float16)
    assert narrow.products(x, np.ones((1, SINGLES), np.float32))[0, 0] == np.inf


@pytest.mark.parametrize(
    ("width", "classes", "kind"), [(SINGLES + 1, 3, np.float16), (SINGLES, 17, np.float16), (SINGLES, 3, np.uint8)]
)
def test_others_take_the_common_way(width: int, classes: int, kind: type) -> None:
    x, columns = _case(0, 9, width, classes, kind)
    assert not narrow.is_narrow(x, classes)
    logits = x.astype(np.float64) @ columns.T.astype(np.float64)
    expected = np.exp(logits - logits.max(1, keepdims=True))
    found = linear_probs(x, columns, np.zeros(classes, np.float32))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("committee", [False, True])
def test_a_blocks_probabilities_are_the_wholes(kind: type, committee: bool) -> None:
    x, columns = _case(1, 5000, 4 * SINGLES, 6, kind)
    weights = columns.reshape(2, 3, -1) if committee else columns
    bias = np.random.default_rng(2).standard_normal(weights.shape[:-1]).astype(np.float32)
    whole = linear_probs(x, weights, bias)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    assert np.array_equal(linear_probs_of_block(x[1000:1777], weights, bias), whole[1000:1777])
