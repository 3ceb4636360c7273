"""Small fits in one call of machine code, and the factors they are made with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import small_fit
from ray_al.kernels.logistic import ABSENT_BIAS, fit_logistic
from ray_al.kernels.small_fit import fit_small
from ray_al.kernels.triangular import ROWS, factor, solve_back, solve_rows, square
from ray_al.kernels.vectors import SINGLES, aligned


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9999),
    rows=st.integers(1, 20),
    width=st.integers(1, 4),
    ridge=st.sampled_from([1e-3, 1.0]),
)
def test_factors_are_those_of_lapack(seed: int, rows: int, width: int, ridge: float) -> None:
    rng, n, w = np.random.default_rng(seed), rows * ROWS, width * SINGLES
    x = aligned(np.empty(0), n, w + SINGLES)  # more columns than are squared
    x[:] = rng.normal(size=x.shape)
    m = aligned(x, w, w + SINGLES)
    square(x, 0.5, ridge, m)
    wanted = 0.5 * x[:, :w].T @ x[:, :w] + ridge * np.eye(w)
    np.testing.assert_allclose(np.tril(m[:, :w]), np.tril(wanted), rtol=1e-10, atol=1e-10)
    inverses = np.full((width, SINGLES, SINGLES), np.nan)
    assert factor(m, inverses)
    lower = np.tril(m[:, :w])
    np.testing.assert_allclose(lower @ lower.T, wanted, rtol=1e-10, atol=1e-10 * n)
    np.testing.assert_array_equal(m[:, :w], lower + np.tril(m[:, :w], -1).T)
    found, beyond = x.copy(), x[:, w:].copy()
    solve_rows(found, m, inverses)
    np.testing.assert_allclose(found[:, :w] @ lower.T, x[:, :w], rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(found[:, w:], beyond)
    u = x[:3].copy()
    solve_back(u, m)
    np.testing.assert_allclose(u[:, :w] @ lower, x[:3, :w], rtol=1e-7, atol=1e-7)


def test_what_is_not_positive_is_no_square() -> None:
    m = aligned(np.empty(0), SINGLES, SINGLES)
    for worst in (0.0, -1.0, np.nan):
        m[:] = np.eye(SINGLES)
        m[3, 3] = worst
        assert not factor(m, np.empty((1, SINGLES, SINGLES)))


def _problem(seed: int, n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d)) + 3
    return x.astype(np.float16).astype(np.float32), y


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 9999),
    n=st.sampled_from([2, 9, 40, 150]),
    d=st.sampled_from([1, 5, 16, 33]),
    classes=st.integers(2, 7),
    l2=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_heads_are_those_of_the_way_of_large_problems(seed: int, n: int, d: int, classes: int, l2: float) -> None:
    x, y = _problem(seed, n, d, classes)
    found = fit_small(x, y, classes, l2, 1e-7)
    assert found is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_fit, "fit_small", lambda *args: None)
        (wanted,) = fit_logistic([(x, y)], classes, l2)
    np.testing.assert_allclose(found[0], wanted.weights, atol=2e-4)
    np.testing.assert_allclose(found[1], wanted.bias, rtol=1e-5, atol=2e-3)


def test_bits_are_of_the_numbers_and_not_of_their_type_or_place() -> None:
    x, y = _problem(0, 90, 21, 4)
    one = fit_small(x, y, 4, 1.0, 1e-7)
    for other in (x.astype(np.float16), np.concatenate([x[:1, :1].repeat(21, 1), x])[1:], x.copy()):
        for a, b in zip(one or (), fit_small(other, y.astype(np.int32), 4, 1.0, 1e-7) or (), strict=True):
            np.testing.assert_array_equal(a, b)


def test_classes_without_rows_have_no_weights() -> None:
    x, y = _problem(1, 60, 8, 3)
    some, all_of = fit_small(x, 2 * y + 1, 7, 1.0, 1e-7), fit_small(x, y, 3, 1.0, 1e-7)
    one = fit_small(x, 0 * y + 2, 4, 1.0, 1e-7)
    assert some
    assert all_of
    assert one
    np.testing.assert_array_equal(some[0][1::2], all_of[0])
    np.testing.assert_array_equal(some[1], np.insert(all_of[1], [0, 1, 2, 3], ABSENT_BIAS))
    assert not some[0][::2].any()
    assert not one[0].any()
    assert one[1].tolist() == [ABSENT_BIAS, ABSENT_BIAS, 0, ABSENT_BIAS]


def test_what_it_leaves_to_others() -> None:
    x, y = _problem(0, 60, 8, 3)
    assert fit_small(x.astype(np.float64), y, 3, 1.0, 1e-7) is None
    assert fit_small(x, y, 3, 1.0, 1e-30) is None  # float32 has too few digits
    steep = x.copy()
    steep[:, 0] *= 1e9
    assert fit_small(steep, y, 3, 1.0, 1e-7) is None
    for bad in (np.nan, np.inf):
        steep[7, 0] = bad
        assert fit_small(steep, y, 3, 1.0, 1e-7) is None
        with pytest.raises(ValueError, match="row 7"):
            fit_logistic([(steep, y)], 3)
    many = np.ones((30, 400), np.float32)
    assert fit_small(many, y[:30], 3, 1.0, 1e-7) is None
    assert fit_small(np.ones((6000, 300), np.float32), y.repeat(100), 3, 1.0, 1e-7) is None
