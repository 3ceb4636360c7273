"""Batched linear heads on resident rows against the CPU kernel, one at a time."""

import numpy as np
import pytest
from scipy.special import softmax

from ray_al.kernels.device import logistic, newton
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.logistic import ABSENT_BIAS, fit_logistic
from tests.kernels.devices import device, one_thread

__all__ = ["device", "one_thread"]


@pytest.fixture(autouse=True)
def batches(monkeypatch):
    """On the CPU, too, where one problem at a time would do."""
    monkeypatch.setattr(logistic, "_AT_ONCE", {"cuda": 16, "cpu": 4})


def clusters(seed, n, d, classes, dtype="float32"):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = 0.7 * rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d)) + 2
    return x.astype(dtype), y


@pytest.mark.parametrize("seed", range(3))
def test_a_first_step_that_is_far_too_long_is_shortened_along_itself(seed, device, monkeypatch):
    """At zero every class is as likely, and Newton's model there makes logits of about their number."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 60, 400)
    x = (3 * rng.standard_normal((60, 64))[y] + rng.standard_normal((400, 64))).astype(np.float32)
    steps, step = [], newton.SoftmaxBatch.newton_step
    monkeypatch.setattr(newton.SoftmaxBatch, "newton_step", lambda *args: steps.append(1) or step(*args))
    DevicePool(x, device=device).fit([(np.arange(400), y)], 60, 1.0)
    assert len(steps) <= 12  # with a smaller ball for each step that was too long: 17 to 21


def probabilities(head, x):
    return softmax(x.astype(np.float64) @ head.weights.T.astype(np.float64) + head.bias, axis=1)


def gradient_norm(head, x, y, l2):
    """Relative to that at zero, in plain coordinates: float32 heads leave about 1e-6."""
    target = np.eye(len(head.bias))[y]

    def norm(w, b):
        pull = softmax(x @ w.T + b, axis=1) - target
        return np.sqrt(np.square(pull.T @ x + l2 * w).sum() + np.square(pull.sum(0)).sum())

    x, w = x.astype(np.float64), head.weights.astype(np.float64)
    return norm(w, head.bias) / norm(0 * w, np.log(np.bincount(y, minlength=len(head.bias)) / len(y) + 1e-300))


@pytest.mark.parametrize("l2", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_many_problems_have_the_cpu_kernels_answers(l2, dtype, device):
    x, y = clusters(0, 900, 30, 5, dtype)
    rng = np.random.default_rng(1)
    problems = [(ids := rng.permutation(900)[:n], y[ids]) for n in (5, 12, 14, 15, 40, 200, 210, 220, 230, 240, 900)]
    expected = fit_logistic([(x[ids].astype(np.float32), labels) for ids, labels in problems], 5, l2)
    for head, other, (ids, labels) in zip(
        DevicePool(x, device=device).fit(problems, 5, l2), expected, problems, strict=True
    ):
        assert head.weights.shape == (5, 30)
        assert head.weights.dtype == head.bias.dtype == np.float32
        np.testing.assert_allclose(probabilities(head, x[ids]), probabilities(other, x[ids]), atol=2e-5)
        if len(np.unique(labels)) == 5:
            assert gradient_norm(head, x[ids], labels, l2) < 1e-5


def test_an_answer_has_the_same_bits_whatever_it_is_batched_with(device):
    x, y = clusters(2, 600, 20, 4)
    rng = np.random.default_rng(0)
    problems = [(ids := rng.permutation(600)[:n], y[ids]) for n in (30, 31, 32, 200, 29, 28, 32)]
    pool = DevicePool(x, device=device)
    alone = [pool.fit([problem], 4)[0] for problem in problems]
    for order in ([*range(7)], [6, 5, 4, 3, 2, 1, 0], [0, 0, 4], [5, 1]):
        for index, head in zip(order, pool.fit([problems[index] for index in order], 4), strict=True):
            np.testing.assert_array_equal(head.weights, alone[index].weights)
            np.testing.assert_array_equal(head.bias, alone[index].bias)


def test_batches_mix_easy_and_hard_problems(monkeypatch, device):
    """Some converge at once, others go on, in float64 inside where float32 fails: none disturbs another."""
    monkeypatch.setattr(logistic, "_filled", lambda count, least: max(least, 64))
    x, y = clusters(3, 300, 16, 3)
    scaled = x * np.logspace(-3, 3, 16).astype(np.float32)
    rows = np.concatenate([x[:60], np.repeat(x[:1], 60, 0), scaled[:60], np.zeros((60, 16), np.float32)])
    problems = [(np.arange(60 * part, 60 * part + 60), y[:60]) for part in range(4)]
    for l2 in (1e-3, 1.0, 1e4):
        expected = fit_logistic([(rows[ids], labels) for ids, labels in problems], 3, l2)
        found = DevicePool(rows, device=device).fit(problems, 3, l2)
        for head, other, (ids, labels) in zip(found, expected, problems, strict=True):
            np.testing.assert_allclose(probabilities(head, rows[ids]), probabilities(other, rows[ids]), atol=3e-5)
            mean = probabilities(head, rows[ids]).mean(0)  # the bias is free
            np.testing.assert_allclose(mean, np.bincount(labels, minlength=3) / 60, atol=1e-4)


@pytest.mark.parametrize("n", [20, 100])  # fewer rows than columns, and more
@pytest.mark.parametrize("scale", [1e4, 1e7, 1e9])
def test_columns_of_very_different_scales(n, scale, device):
    """The gradient is zero at the minimum: here, in units in which all columns weigh alike. The problem beside it,
    of other scales, has the bits it has alone."""
    x, y = clusters(2, 2 * n, 60, 3)
    x[:n, 0] *= scale
    x[:n, 1] = x[:n, 0]
    pool, first, second = DevicePool(x, device=device), np.arange(n), np.arange(n, 2 * n)
    head, beside = pool.fit([(first, y[:n]), (second, y[n:])], 3)
    exact = x[:n].astype(np.float64) - x[:n].astype(np.float64).mean(0)
    unit = 1 / np.sqrt(np.square(exact).sum(0) + 1)
    off = probabilities(head, x[:n]) - np.eye(3)[y[:n]]
    at_zero = (1 / 3 - np.eye(3)[y[:n]]).T @ exact * unit
    gradient = (off.T @ exact + head.weights) * unit
    assert np.abs(gradient).max() < 1e-4 * np.abs(at_zero).max()
    (alone,) = pool.fit([(second, y[n:])], 3)
    np.testing.assert_array_equal(beside.weights, alone.weights)


def test_absent_classes_are_columns_of_probability_zero(device):
    x, y = clusters(4, 80, 6, 3)
    pool = DevicePool(x, device=device)
    some, sure = pool.fit([(np.arange(80), 2 * y), (np.arange(10), np.full(10, 4))], 7)
    absent = [1, 3, 5, 6]
    assert (some.weights[absent] == 0).all()
    assert (some.bias[absent] == ABSENT_BIAS).all()
    (expected,) = fit_logistic([(x, 2 * y)], 7)
    np.testing.assert_allclose(probabilities(some, x), probabilities(expected, x), atol=1e-5)
    np.testing.assert_array_equal(probabilities(sure, x), np.eye(7)[np.full(80, 4)])


def test_bad_problems_name_the_value():
    x, y = clusters(5, 20, 4, 3)
    pool = DevicePool(x)
    ids = np.arange(20)
    with pytest.raises(ValueError, match=r"label 9 is outside 0\.\.2"):
        pool.fit([(ids, np.r_[y[1:], 9])], 3)
    with pytest.raises(ValueError, match="label -1"):
        pool.fit([(ids, y - 1 - y.min())], 3)
    with pytest.raises(ValueError, match="do not fit ids"):
        pool.fit([(ids, y[:5])], 3)
    with pytest.raises(ValueError, match="do not fit ids"):
        pool.fit([(ids[:0], y[:0])], 3)
    with pytest.raises(ValueError, match="ids holds id 20"):
        pool.fit([(ids + 1, y)], 3)
    with pytest.raises(ValueError, match="positive, got 0"):
        pool.fit([(ids, y)], 3, l2=0)
    with pytest.raises(FloatingPointError, match="tolerance 1e-30"):
        pool.fit([(ids, y)], 3, tol=1e-30)
    assert pool.fit([], 3) == []
