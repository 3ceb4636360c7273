import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ray_al.kernels.logistic import ABSENT_BIAS, fit_logistic


def probabilities(head, x):
    return softmax(x.astype(np.float64) @ head.weights.T.astype(np.float64) + head.bias, axis=1)


def objective(head, x, y, l2):
    probs = probabilities(head, x)[np.arange(len(x)), y]
    return -np.log(probs).sum() + l2 / 2 * np.square(head.weights.astype(np.float64)).sum()


def random_problem(seed, n, d, classes, offset=0.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = 0.7 * rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d)) + offset
    return x.astype(np.float32), y


def assert_is_scikit_learns(x, y, classes, l2, head):
    with threadpool_limits(1):  # its many small products wait for each other where the cores are busy
        model = LogisticRegression(C=1 / l2, tol=1e-9, max_iter=100_000).fit(x.astype(np.float64), y)
    ours = probabilities(head, x)
    theirs = np.zeros_like(ours)
    theirs[:, model.classes_] = model.predict_proba(x.astype(np.float64))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(2, 60), st.integers(1, 40), st.integers(2, 6), st.sampled_from([0.1, 1.0, 10.0]))
def test_probabilities_are_scikit_learns(seed, n, d, classes, l2):
    x, y = random_problem(seed, n, d, classes, offset=3.0)
    if len(np.unique(y)) < 2:
        y[:2] = 0, 1
    (head,) = fit_logistic([(x, y)], classes, l2)
    assert head.weights.shape == (classes, d)
    assert head.bias.shape == (classes,)
    assert head.weights.dtype == head.bias.dtype == np.float32
    # Two classes: scikit-learn fits one row of weights, whose norm counts once; here both rows count.
    assert_is_scikit_learns(x, y, classes, l2 / 2 if len(np.unique(y)) == 2 else l2, head)


@pytest.mark.parametrize("n", [10, 40, 300, 1500])
def test_digits(n):
    x, y = load_digits(return_X_y=True)
    x, y = (x[:n] / 16).astype(np.float32), y[:n]
    (head,) = fit_logistic([(x, y)], 10)
    assert_is_scikit_learns(x, y, 10, 1.0, head)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_other_types_and_read_only(dtype):
    x, y = load_digits(return_X_y=True)
    x = x[:200].astype(dtype)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (head,) = fit_logistic([(x, y[:200])], 10)
    assert_is_scikit_learns(x, y[:200], 10, 1.0, head)


def test_no_other_point_is_better():
    x, y = random_problem(0, 100, 20, 4)
    (head,) = fit_logistic([(x, y)], 4, l2=0.01)
    best = objective(head, x, y, 0.01)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        moved = head._replace(weights=head.weights + size * rng.standard_normal(head.weights.shape))
        assert objective(moved, x, y, 0.01) > best


def test_an_answer_is_the_same_bits_whatever_it_is_batched_with():
    problems = [random_problem(seed, n, d, 5) for seed, (n, d) in enumerate([(10, 64), (50, 8), (200, 100), (90, 100)])]
    alone = [fit_logistic([problem], 5)[0] for problem in problems]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 2, 0, 1, 2, 3]):
        for index, head in zip(order, fit_logistic([problems[index] for index in order], 5), strict=True):
            np.testing.assert_array_equal(head.weights, alone[index].weights)
            np.testing.assert_array_equal(head.bias, alone[index].bias)


def test_absent_classes_are_columns_of_probability_zero():
    x, y = random_problem(0, 50, 6, 3)
    (head,) = fit_logistic([(x, 2 * y)], 7)
    absent = [1, 3, 5, 6]
    assert (head.weights[absent] == 0).all()
    assert (head.bias[absent] == ABSENT_BIAS).all()
    assert (probabilities(head, x)[:, absent] == 0).all()
    assert_is_scikit_learns(x, 2 * y, 7, 1.0, head)
    (sure,) = fit_logistic([(x, np.full(50, 4))], 7)
    np.testing.assert_array_equal(probabilities(sure, x), np.eye(7)[np.full(50, 4)])


@pytest.mark.parametrize("n", [20, 100])  # fewer rows than columns, and more
@pytest.mark.parametrize("scale", [1e4, 1e7, 1e9])
def test_columns_of_very_different_scales(n, scale):
    x, y = random_problem(2, n, 60, 3)
    x[:, 0] *= scale
    x[:, 1] = x[:, 0]
    (head,) = fit_logistic([(x, y)], 3)
    # At the minimum the gradient is zero: here, in units in which all columns weigh alike.
    exact = x.astype(np.float64) - x.astype(np.float64).mean(0)
    unit = 1 / np.sqrt(np.square(exact).sum(0) + 1)
    off = probabilities(head, x) - np.eye(3)[y]
    at_zero = (1 / 3 - np.eye(3)[y]).T @ exact * unit
    gradient = (off.T @ exact + head.weights) * unit
    assert np.abs(gradient).max() < 1e-4 * np.abs(at_zero).max()


def test_hard_problems_converge():
    x, y = random_problem(1, 60, 30, 3)
    same = np.repeat(x[:1], 60, 0)  # nothing to learn but the class frequencies
    flat = np.zeros((60, 500), np.float32)
    scaled = x * np.logspace(-3, 3, 30).astype(np.float32)
    for problem in (same, flat, scaled, np.concatenate([x, x], 1), np.repeat(x[:20], 3, 0)):
        for l2 in (1e-4, 1.0, 1e4):
            (head,) = fit_logistic([(problem, y)], 3, l2)
            assert np.isfinite(head.weights).all()
            # The bias is free: mean probabilities are the class frequencies.
            np.testing.assert_allclose(probabilities(head, problem).mean(0), np.bincount(y) / 60, atol=1e-4)


def test_bad_input_names_the_value():
    x, y = random_problem(0, 10, 4, 3)
    with pytest.raises(ValueError, match=r"label 9 is outside 0\.\.2"):
        fit_logistic([(x, np.r_[y[1:], 9])], 3)
    with pytest.raises(ValueError, match="label -1"):
        fit_logistic([(x, y - 1 - y.min())], 3)
    with pytest.raises(ValueError, match="does not fit"):
        fit_logistic([(x, y[:5])], 3)
    with pytest.raises(ValueError, match="positive, got 0"):
        fit_logistic([(x, y)], 3, l2=0)
    x[2, 3] = np.nan
    with pytest.raises(ValueError, match="x is nan at row 2"):
        fit_logistic([(x, y)], 3)
