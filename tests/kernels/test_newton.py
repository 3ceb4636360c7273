import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from ray_al.kernels import conjugate, logistic, newton, small_fit, small_newton
from ray_al.kernels.logistic import fit_logistic
from ray_al.kernels.newton import SoftmaxProblem
from ray_al.kernels.small_newton import minimize_small
from tests.kernels.test_logistic import assert_is_scikit_learns, random_problem


def newtons_problem(seed, n, width, classes, scales=0.0):
    """Rows (n, width) float64, labels (n,), and a kappa: what `minimize` is given."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    rows = 0.7 * rng.standard_normal((classes, width))[label] + rng.standard_normal((n, width))
    rows *= 10 ** rng.uniform(-scales, scales, width)
    return rows, label, 0.1 / np.square(np.linalg.norm(rows, 2))


def objective_and_gradient(rows, label, kappa, u):
    z = u @ rows.T
    nll = (logsumexp(z, 0) - z[label, np.arange(len(label))]).sum()
    off = softmax(z, 0) - np.eye(len(u))[:, label] - kappa * z
    return nll + (np.square(u).sum() - kappa * np.square(z).sum()) / 2, off @ rows + u


def by_steps(rows, label, classes, kappa, tol=1e-7):
    """The same by the way of large problems."""
    problem = SoftmaxProblem(torch.from_numpy(rows), torch.from_numpy(label), classes, kappa)
    return newton.minimize(problem, tol).numpy()


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 40), st.integers(2, 9), st.sampled_from([0, 1]))
@settings(deadline=None, max_examples=50)
def test_small_and_large_problems_are_solved_to_the_same_point(seed, n, width, classes, scales):
    rows, label, kappa = newtons_problem(seed, n, width, classes, scales)
    u, *_ = minimize_small(rows, label, classes, kappa, 1e-7)
    other = by_steps(rows, label, classes, kappa)
    first = np.linalg.norm(objective_and_gradient(rows, label, kappa, np.zeros_like(u))[1])
    for found in (u, other):
        assert np.linalg.norm(objective_and_gradient(rows, label, kappa, found)[1]) <= 1.1e-7 * first + 1e-12
    # The objective's curvature is at least 0.9 everywhere: as far apart can two such points be.
    assert np.linalg.norm(u - other) <= 3e-7 * first + 1e-12
    np.testing.assert_array_equal(u, minimize_small(rows, label, classes, kappa, 1e-7)[0])


@pytest.mark.parametrize(("n", "width", "classes"), [(5, 3, 2), (50, 32, 16), (200, 65, 33)])
def test_products_in_bfloat16_lead_to_the_same_point(n, width, classes, monkeypatch):
    rows, label, kappa = newtons_problem(0, n, width, classes)
    usual = by_steps(rows, label, classes, kappa)
    steps, step = [], SoftmaxProblem.newton_step
    monkeypatch.setattr(newton, "_WORTH_HALVES", 0)
    monkeypatch.setattr(newton.products, "HALVES", True)
    monkeypatch.setattr(SoftmaxProblem, "newton_step", lambda *args: steps.append(args[-1]) or step(*args))
    found = by_steps(rows, label, classes, kappa)
    assert torch.bfloat16 in steps
    first = np.linalg.norm(objective_and_gradient(rows, label, kappa, np.zeros_like(found))[1])
    assert np.linalg.norm(objective_and_gradient(rows, label, kappa, found)[1]) <= 1.1e-7 * first
    assert np.linalg.norm(found - usual) <= 3e-7 * first


def test_where_float32_has_too_few_digits_the_way_of_large_problems_goes_on(monkeypatch):
    rows, label, kappa = newtons_problem(0, 40, 10, 3)
    assert minimize_small(rows, label, 3, kappa, 1e-30)[0] is None
    with pytest.raises(FloatingPointError, match="no convergence"):
        by_steps(rows, label, 3, kappa, 1e-30)
    x, y = random_problem(0, 50, 6, 3)
    monkeypatch.setattr(small_fit, "fit_small", lambda *args: None)
    monkeypatch.setattr(small_newton, "minimize_small", lambda *args: (None, 3, 0))
    (head,) = fit_logistic([(x, y)], 3)
    assert_is_scikit_learns(x, y, 3, 1.0, head)


@pytest.mark.parametrize("spread", [0, 2])
def test_whole_steps_with_a_search_converge_where_the_trust_region_is_slow(spread, monkeypatch):
    rows, label, kappa = newtons_problem(0, 200, 12, 30, spread)
    usual, _, few = minimize_small(rows, label, 30, kappa, 1e-7)
    found, steps, searches = minimize_small(rows, label, 30, kappa, 1e-7, few=3)
    assert searches > few
    assert searches >= steps - 3
    searched, search = [], SoftmaxProblem.search
    monkeypatch.setattr(newton, "FEW_STEPS", 3)
    monkeypatch.setattr(SoftmaxProblem, "search", lambda *args: searched.append(1) or search(*args))
    best, _ = objective_and_gradient(rows, label, kappa, usual)
    for other in (found, by_steps(rows, label, 30, kappa)):
        np.testing.assert_allclose(softmax(other @ rows.T, 0), softmax(usual @ rows.T, 0), atol=1e-3)
        assert objective_and_gradient(rows, label, kappa, other)[0] == pytest.approx(best, rel=1e-6)
    assert searched


@pytest.mark.parametrize("seed", range(3))
def test_a_first_step_that_is_far_too_long_is_shortened_along_itself(seed, monkeypatch):
    """At zero every class is as likely, and Newton's model there makes logits of about their number."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 60, 400)
    x = (3 * rng.standard_normal((60, 64))[y] + rng.standard_normal((400, 64))).astype(np.float32)
    monkeypatch.setattr(small_fit, "fit_small", lambda *args: None)
    counts, small = [], small_newton.minimize_small
    monkeypatch.setattr(small_newton, "minimize_small", lambda *args: counts.append(small(*args)[1]) or small(*args))
    fit_logistic([(x, y)], 60)
    steps, step = [], SoftmaxProblem.newton_step
    monkeypatch.setattr(SoftmaxProblem, "newton_step", lambda *args: steps.append(1) or step(*args))
    monkeypatch.setattr(logistic, "SMALL", 0)
    fit_logistic([(x, y)], 60)
    assert 0 < len(steps) <= 12  # with a smaller ball for each step that was too long: 17 to 21
    assert 0 < counts[0] <= 12


@pytest.mark.parametrize("seed", range(3))
def test_the_bend_in_bfloat16_is_the_float32_one_rounded(seed):
    rng = np.random.default_rng(seed)
    probs = softmax(rng.standard_normal((7, 33)), axis=0).astype(np.float32)
    s = torch.from_numpy(rng.standard_normal((7, 33)).astype(np.float32) * 10.0 ** rng.integers(-6, 6)).bfloat16()
    expected = s.float().numpy()
    conjugate.bend(probs, expected, np.float32(0.01))
    conjugate.bend_halves(probs, s.view(torch.int16).numpy(), np.float32(0.01))
    assert torch.equal(s, torch.from_numpy(expected).bfloat16())


def test_conjugate_gradients_end_where_the_curvature_or_the_ball_does():
    hessian = np.diag([1.0, 2.0, 5.0])
    for dtype in (np.float32, np.float64):
        d, r, p = np.zeros(3, dtype), np.ones(3, dtype), np.ones(3, dtype)
        square = 3.0
        for _ in range(3):
            square, end = conjugate.advance(d, r, p, ((hessian - np.eye(3)) @ p).astype(dtype), square, np.inf)
            assert end == 0
        assert np.allclose(d, [1, 0.5, 0.2], atol=1e-5)
        assert square < 1e-10
        d, r, p = np.zeros(3, dtype), np.ones(3, dtype), np.ones(3, dtype)
        _, end = conjugate.advance(d, r, p, ((hessian - np.eye(3)) @ p).astype(dtype), 3.0, 0.1)
        assert end == conjugate.AT_EDGE
        assert np.isclose(np.linalg.norm(d), 0.1)
        assert np.allclose(r, 1 - hessian @ d, atol=1e-6)  # the residual of where it ended
        assert conjugate.advance(d, r, p, -2 * p, 3.0, 0.1)[1] == conjugate.FLAT


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 40), st.integers(2, 9))
@settings(deadline=None, max_examples=25)
def test_conjugate_gradients_solve_the_newton_system(seed, n, width, classes):
    rng = np.random.default_rng(seed)
    rows, kappa = rng.standard_normal((n, width)), 0.01 / classes / n
    probs = softmax(rng.standard_normal((classes, n)) * 3, axis=0)
    gradient = rng.standard_normal((classes, width))
    bent = np.einsum("cn,ce,nw,nv->cwev", probs, np.eye(classes), rows, rows)
    bent -= np.einsum("cn,en,nw,nv->cwev", probs, probs, rows, rows)
    bent -= kappa * np.einsum("ce,nw,nv->cwev", np.eye(classes), rows, rows)
    hessian = bent.reshape(classes * width, -1) + np.eye(classes * width)
    filled = np.zeros((-(-n // 4) * 4, -(-width // 16) * 16), np.float32)
    filled[:n, :width] = rows
    weights = np.zeros((-(-classes // 2) * 2, len(filled)), np.float32)
    weights[:classes, :n] = probs
    d, r = np.zeros((2, len(weights), filled.shape[1]), np.float32)
    r[:classes, :width] = -gradient
    assert conjugate.descend(filled, weights, np.float32(kappa), d, r, np.inf, 1e-3) == conjugate.DONE
    found = d[:classes, :width].astype(np.float64)
    residual = -gradient - (hessian @ found.reshape(-1)).reshape(classes, width)
    assert np.linalg.norm(residual) <= 1.1e-3 * np.linalg.norm(gradient)
    assert np.allclose(r[:classes, :width], residual, atol=1e-4 * np.linalg.norm(gradient))
