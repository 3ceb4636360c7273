"""Linear scores of resident rows against naive float64, and against the kernels on CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.scores import SCORES, Head, split
from ray_al.kernels.top_scores import linear_probs, linear_uncertainty, top_k
from tests.kernels.devices import DEVICES, device, exact_probs, id_lists, one_thread, random_head
from tests.kernels.matrices import NO_IDS, matrices

__all__ = ["device", "one_thread"]


def exact_entropy(probs):
    return -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1)


def exact_scores(x, head, score):
    if score == "bald":
        members = np.stack([exact_probs(x, w, b) for w, b in zip(*head, strict=True)])
        return exact_entropy(members.mean(0)) - exact_entropy(members).mean(0)
    ordered = np.sort(np.concatenate([exact_probs(x, *head), np.zeros((len(x), 1))], 1), 1)[:, ::-1]
    if score == "entropy":
        return exact_entropy(ordered)
    return 1 - ordered[:, 0] + (ordered[:, 1] if score == "margin" else 0)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 6), st.sampled_from(SCORES), st.data())
def test_scores_are_those_of_float64(x, classes, score, data):
    rng = np.random.default_rng(0)
    count, d = x.shape
    members = 3 if score == "bald" else None
    heads = [random_head(rng, d, classes, members) for _ in range(3)]
    heads = [Head(h.weights / np.abs(x).max(initial=1), h.bias) for h in heads]
    excludes = [data.draw(id_lists(count)) for _ in heads]
    ks = [count - len(np.unique(ids)) for ids in excludes]
    for where in DEVICES:
        found = DevicePool(x, device=where).top(heads, score, ks, excludes, [1, 2, 3])
        for head, (ids, values), exclude, k in zip(heads, found, excludes, ks, strict=True):
            assert sorted(ids.tolist()) == sorted(set(range(count)) - set(exclude.tolist()))
            assert ids.shape == values.shape == (k,)
            assert (np.diff(values) <= 0).all()
            np.testing.assert_allclose(values, exact_scores(x, head, score)[ids], atol=3e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("score", [score for score in SCORES if score != "bald"])
def test_top_is_the_cpu_kernels(dtype, score, device):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5000, 40)).astype(dtype)
    head = random_head(rng, 40, 7)
    exclude = np.arange(100, 400)
    ((ids, values),) = DevicePool(x, device=device).top([head], score, 200, [exclude], [4])
    expected, of_expected = top_k(linear_uncertainty(x, *head, score), 200, exclude, 4)
    np.testing.assert_allclose(values, of_expected, atol=2e-6)
    assert len(np.intersect1d(ids, expected)) >= 198  # the last two may differ by rounding
    np.testing.assert_allclose(
        linear_uncertainty(x[ids], *head, score), values, atol=2e-6
    )  # an id belongs to its value


def test_ties_are_broken_as_on_the_cpu(device):
    x = np.zeros((500, 3), np.float32)
    x[::2] = 1
    head = Head(np.array([[1.0, 0, 0], [0, 0, 0]], np.float32), np.zeros(2, np.float32))
    pool = DevicePool(x, device=device)
    for seed in range(5):
        ((ids, _),) = pool.top([head], "entropy", 300, [np.arange(7)], [seed])
        expected, _ = top_k(linear_uncertainty(x, *head, "entropy"), 300, np.arange(7), seed)
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("score", SCORES)
def test_a_head_gets_the_same_bits_whatever_it_is_fused_with(score, device):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3000, 30)).astype(np.float16)
    pool = DevicePool(x, device=device)
    members = 2 if score == "bald" else None
    heads = [random_head(rng, 30, classes, members) for classes in (10, 10, 3, 10, 100, 10, 3, 10)]
    excludes = [np.arange(i, 50) for i in range(len(heads))]
    alone = [pool.top([h], score, 20, [e], [i])[0] for i, (h, e) in enumerate(zip(heads, excludes, strict=True))]
    for order in ([*range(8)], [7, 6, 5, 4, 3, 2, 1, 0], [3, 1, 1], [4, 0]):
        got = pool.top([heads[i] for i in order], score, 20, [excludes[i] for i in order], order)
        for i, (ids, values) in zip(order, got, strict=True):
            np.testing.assert_array_equal(ids, alone[i][0])
            np.testing.assert_array_equal(values, alone[i][1])


def test_probs(device):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 12)).astype(np.float16)
    head = random_head(rng, 12, 5)
    pool = DevicePool(x, 100, device=device)
    expected = exact_probs(x, *head)[100:]
    ids = np.array([5, 0, 299, 5])
    np.testing.assert_allclose(pool.probs(head), expected, atol=1e-5)
    np.testing.assert_allclose(pool.probs(head, ids), expected[ids], atol=1e-5)
    np.testing.assert_allclose(pool.probs(head, slice(10, 20)), expected[10:20], atol=1e-5)
    np.testing.assert_allclose(pool.probs(head), linear_probs(x, *head)[100:], atol=1e-5)
    assert pool.probs(head, NO_IDS).shape == (0, 5)


def test_weights_in_two_halves_have_float32s_digits():
    for scale in (1e-25, 1.0, 1e20):
        weights = torch.randn((4, 10, 64), generator=torch.Generator().manual_seed(0)) * scale
        high, low, inverse = split(weights)
        back = (high.double() + low.double()) * inverse.double()[:, None, None]
        assert float((back - weights).abs().max()) <= 2**-22 * float(weights.abs().max())
    high, low, inverse = split(torch.zeros(1, 2, 3))
    assert not high.any()
    assert not low.any()
    assert torch.isfinite(inverse).all()


def test_bad_scores_name_the_value():
    pool = DevicePool(np.zeros((5, 2), np.float32))
    head = Head(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="unknown score 'variance'; known: entropy"):
        pool.top([head], "variance", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match=r"k is 5.*0\.\.4"):
        pool.top([head], "entropy", 5, [np.array([1, 1])], [0])
    with pytest.raises(ValueError, match="exclude holds id 5"):
        pool.top([head], "entropy", 1, [np.array([5])], [0])
    with pytest.raises(ValueError, match="weights holds nan"):
        pool.top([Head(np.full((3, 2), np.nan, np.float32), head.bias)], "entropy", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match="do not fit"):
        pool.top([Head(np.zeros((3, 4), np.float32), head.bias)], "entropy", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match=r"\(S, C, d\)"):
        pool.top([head], "bald", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match="1 heads, 1 k, 2 excludes"):
        pool.top([head], "entropy", 1, [NO_IDS, NO_IDS], [0])
    ((ids, values),) = pool.top([head], "entropy", 0, [NO_IDS], [0])
    assert ids.shape == values.shape == (0,)
