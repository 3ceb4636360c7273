import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr, softmax
from scipy.stats import chisquare

from ray_al.kernels import compiled
from ray_al.kernels.top_scores import SCORES, linear_probs, linear_uncertainty, top_k, uncertainty
from tests.kernels.matrices import NO_IDS, matrices


def naive(probs, score):
    probs = probs.astype(np.float64)
    if score == "entropy":
        return entr(probs).sum(1)
    ordered = np.sort(np.column_stack([probs, np.zeros(len(probs))]), 1)[:, ::-1]
    return 1 - ordered[:, 0] if score == "least_confidence" else 1 - (ordered[:, 0] - ordered[:, 1])


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 6), st.sampled_from(SCORES), st.integers(0, 99), st.floats(0.01, 30))
def test_scores_of_a_linear_head(x, classes, score, seed, size):
    rng = np.random.default_rng(seed)
    weights = (size / np.abs(x).max().clip(1) * rng.standard_normal((classes, x.shape[1]))).astype(np.float32)
    bias = rng.standard_normal(classes).astype(np.float32)
    probs = softmax(x.astype(np.float64) @ weights.T.astype(np.float64) + bias, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, scores = linear_probs(x, weights, bias), linear_uncertainty(x, weights, bias, score)
    assert ours.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(ours, probs, atol=3e-5)
    np.testing.assert_allclose(scores, naive(probs, score), atol=2e-4)
    np.testing.assert_allclose(uncertainty(ours, score), naive(ours, score), atol=1e-6)
    assert (scores >= 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_sure_and_undecided_rows(score):
    probs = np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    np.testing.assert_allclose(uncertainty(probs, score), naive(probs, score), atol=1e-6)
    assert uncertainty(probs, score)[0] == 0
    # A class that the head never saw has probability 0, and no NaN comes of it.
    head = np.zeros((3, 1), np.float32), np.array([0, 0, -1e4], np.float32)
    value = linear_uncertainty(np.ones((2, 1), np.float32), *head, score)
    np.testing.assert_allclose(value, naive(probs[[1, 1]], score), atol=1e-6)


def naive_bald(probs):
    probs = probs.astype(np.float64)  # (T, n, C)
    return entr(probs.mean(0)).sum(1) - entr(probs).sum(2).mean(0)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99), st.floats(0.01, 30))
def test_scores_of_a_committee(x, classes, members, seed, size):
    rng = np.random.default_rng(seed)
    shape = members, classes, x.shape[1]
    weights = (size / np.abs(x).max().clip(1) * rng.standard_normal(shape)).astype(np.float32)
    bias = rng.standard_normal(shape[:2]).astype(np.float32)
    logits = np.einsum("nd,tcd->tnc", x.astype(np.float64), weights.astype(np.float64)) + bias[:, None]
    probs = softmax(logits, axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, mean = linear_uncertainty(x, weights, bias, "bald"), linear_probs(x, weights, bias)
    assert scores.dtype == mean.dtype == np.float32
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores, naive_bald(probs), atol=2e-4)
    np.testing.assert_allclose(mean, probs.mean(0), atol=3e-5)
    np.testing.assert_allclose(uncertainty(probs, "bald"), naive_bald(probs), atol=1e-6)
    np.testing.assert_array_equal(linear_uncertainty(x, weights, bias, "bald"), scores)
    for score in SCORES:  # of the mean
        values = linear_uncertainty(x, weights, bias, score)
        np.testing.assert_allclose(values, naive(probs.mean(0), score), atol=2e-4)


def test_members_that_agree_share_nothing_and_sure_ones_that_differ_share_all():
    x, weights = np.ones((3, 1), np.float32), np.zeros((2, 3, 1), np.float32)
    same = np.array([[0.3, 2.0, -1.0]] * 2, np.float32)
    np.testing.assert_allclose(linear_uncertainty(x, weights, same, "bald"), 0, atol=3e-7)
    apart = np.array([[0, -1e4, -1e4], [-1e4, 0, -1e4]], np.float32)  # probabilities 0 and 1
    np.testing.assert_allclose(linear_uncertainty(x, weights, apart, "bald"), np.log(2), rtol=1e-6)
    sure = np.eye(3)[[[0, 0], [0, 1]]]  # (2, 2, 3)
    np.testing.assert_allclose(uncertainty(sure, "bald"), [0, np.log(2)], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 40), st.sampled_from([1.0, 30.0, 1e4]), st.integers(0, 99))
def test_probabilities_have_the_same_bits_whatever_rows_are_beside(n, classes, size, seed):
    rng = np.random.default_rng(seed)
    logits = (size * rng.standard_normal((classes, n))).astype(np.float32)
    bias = rng.standard_normal(classes).astype(np.float32)
    out, alone = np.empty((n, classes), np.float32), np.empty((1, classes), np.float32)
    compiled.softmax(logits, bias, out)
    np.testing.assert_allclose(out, softmax((logits + bias[:, None]).T.astype(float), axis=1), rtol=1e-5, atol=1e-30)
    row = int(rng.integers(n))
    compiled.softmax(logits[:, row : row + 1].copy(), bias, alone)
    np.testing.assert_array_equal(out[row], alone[0])
    logits[rng.integers(classes), row] = rng.choice([np.nan, np.inf])
    compiled.softmax(logits, bias, alone := np.empty_like(out))
    assert np.isnan(alone[row]).all()
    np.testing.assert_array_equal(np.delete(alone, row, 0), np.delete(out, row, 0))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_logits_that_are_not_finite_stay_nan(n, value, data):
    """Wherever it is: in the vectorized part of the loops, or in their rest."""
    at, row = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 5))
    logits = np.random.default_rng(0).standard_normal((6, n)).astype(np.float32)
    clean = logits.copy()
    logits[row, at] = value
    found = []
    for each in (logits, clean):
        mean, within, out = np.empty((3, n), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
        compiled.mean_softmax(each, np.zeros((2, 3), np.float32), mean, within)
        compiled.bald(mean, within, out)
        found.append(np.vstack([mean, within, out]))
    assert np.isnan(found[0][:, at]).all()
    others = np.arange(n) != at
    np.testing.assert_array_equal(found[0][:, others], found[1][:, others])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_top_k(values, data):
    values = np.array(values, data.draw(st.sampled_from([np.float32, np.float64])))
    exclude = np.array(data.draw(st.lists(st.integers(0, len(values) - 1))), np.int64)
    rest = np.setdiff1d(np.arange(len(values)), exclude)
    k = data.draw(st.integers(0, len(rest)))
    ids, best = top_k(values, k, exclude, data.draw(st.integers(0, 9)))
    assert ids.dtype == np.int64
    assert len(set(ids.tolist())) == k
    assert np.isin(ids, rest).all()
    np.testing.assert_array_equal(best, np.sort(values[rest])[::-1][:k])
    np.testing.assert_array_equal(best, values[ids])


def test_ties_at_the_bar_are_drawn_evenly():
    values = np.array([2, 1, 1, 1, 1, 0], np.float32)
    counts = sum(np.bincount(top_k(values, 3, NO_IDS, seed)[0], minlength=6) for seed in range(2000))
    assert counts[0] == 2000
    assert counts[5] == 0
    assert chisquare(counts[1:5]).pvalue > 1e-4


def test_bad_input_names_the_value():
    x, weights, bias = np.zeros((3, 2), np.float32), np.zeros((4, 2), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="unknown score 'entropie'; known: entropy"):
        linear_uncertainty(x, weights, bias, "entropie")
    with pytest.raises(ValueError, match=r"weights \(4, 2\) and bias \(3,\) do not fit"):
        linear_probs(x, weights, bias[:3])
    bad = x.copy()
    bad[1, 1] = np.inf
    with pytest.raises(ValueError, match="x is inf at row 1"):
        linear_probs(bad, weights + 1, bias)
    with pytest.raises(ValueError, match="probs is inf at row 1"):
        uncertainty(bad, "margin")
    with pytest.raises(ValueError, match="negative value -1"):
        uncertainty(x - 1, "margin")
    with pytest.raises(ValueError, match=r"bald compares the members of a committee.*\(4, 2\)"):
        linear_uncertainty(x, weights, bias, "bald")
    with pytest.raises(ValueError, match=r"weights \(2, 4, 3\) and bias \(2, 4\) do not fit x \(3, 2\)"):
        linear_uncertainty(x, np.zeros((2, 4, 3), np.float32), np.zeros((2, 4), np.float32), "bald")
    with pytest.raises(ValueError, match="weights holds nan"):
        linear_uncertainty(x, np.full((2, 4, 2), np.nan, np.float32), np.zeros((2, 4), np.float32), "bald")
    with pytest.raises(ValueError, match="x is inf at row 1"):
        linear_uncertainty(bad, np.ones((2, 4, 2), np.float32), np.zeros((2, 4), np.float32), "bald")
    with pytest.raises(ValueError, match="the logits of row 0 are not finite"):
        linear_uncertainty(x + 1, np.full((2, 4, 2), 3e38, np.float32), np.zeros((2, 4), np.float32), "bald")
    with pytest.raises(ValueError, match=r"probs \(T, n, C\) of T members, got shape \(3, 2\)"):
        uncertainty(x, "bald")
    with pytest.raises(ValueError, match="probs is inf at row 1"):
        uncertainty(np.stack([x, bad]), "bald")
    with pytest.raises(ValueError, match="values is nan at row 1"):
        top_k(np.array([0, np.nan]), 1, NO_IDS, 0)
    with pytest.raises(ValueError, match="k is 3"):
        top_k(np.zeros(3), 3, np.array([1]), 0)
    with pytest.raises(ValueError, match="exclude holds id -1"):
        top_k(np.zeros(3), 1, np.array([-1]), 0)
