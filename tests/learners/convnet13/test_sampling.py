"""The samplers: passes, cycles, draws by weight, and the batches of two streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ray_al.learners.convnet13.sampling import cycle, passes, two_streams, with_replacement, without_replacement


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(some.integers(1, 60), some.integers(1, 40))
def test_a_pass_visits_each_item_at_most_once_and_drops_what_does_not_fill_a_batch(count, batch):
    order = passes(count, batch, rng())
    full = min(batch, count)
    assert order.shape == (count // full, full)
    assert len(set(order.ravel())) == order.size
    assert order.max() < count


@given(some.integers(1, 20), some.integers(1, 100))
def test_a_cycle_repeats_nothing_within_a_pass(count, draws):
    found = cycle(count, draws, rng())
    assert len(found) == draws
    for start in range(0, draws, count):
        part = found[start : start + count]
        assert len(set(part)) == len(part)


def test_passes_of_a_cycle_have_orders_of_their_own():
    found = cycle(50, 100, rng())
    assert (found[:50] != found[50:]).any()


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
def test_draws_follow_the_weights(draw):
    weights = np.array([0.0, 1.0, 3.0, 0.0, 6.0, 0.0], np.float32)
    stream = rng()
    counts = np.zeros(6)
    for _ in range(4000):
        counts[draw(weights, 1, stream)] += 1
    np.testing.assert_allclose(counts / 4000, weights / 10, atol=0.03)
    assert counts[[0, 3, 5]].sum() == 0


def test_draws_without_replacement_follow_the_weights_that_are_left():
    """The probability that the pair {1, 2} is drawn: first one, then the other of what is left."""
    weights = np.array([1.0, 2.0, 5.0])
    stream = rng()
    pairs = [frozenset(without_replacement(weights, 2, stream).tolist()) for _ in range(4000)]
    expected = 2 / 8 * 5 / 6 + 5 / 8 * 2 / 3
    assert np.mean([pair == {1, 2} for pair in pairs]) == pytest.approx(expected, abs=0.03)


def test_without_replacement_takes_weightless_items_last_and_shuffles():
    weights = np.array([0, 0.5, 0, 0.1, 0, 0], np.float32)
    firsts = set()
    for seed in range(40):
        found = without_replacement(weights, 4, rng(seed))
        assert len(set(found)) == 4
        assert {1, 3} <= set(found)
        firsts.add(int(found[0]))
    assert firsts > {1, 3}  # what comes first in the epoch is no matter of weight


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
def test_without_any_weight_draws_are_uniform(draw):
    stream = rng()
    counts = np.bincount(np.concatenate([draw(np.zeros(5), 2, stream) for _ in range(2000)]), minlength=5)
    np.testing.assert_allclose(counts / 4000, 0.2, atol=0.03)


@pytest.mark.parametrize("weights", [np.array([0.5, np.nan]), np.array([1.0, -0.1]), np.array([np.inf]), np.array([])])
@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
def test_weights_that_are_none_are_refused(draw, weights):
    with pytest.raises(ValueError, match="finite and 0 or more"):
        draw(weights, 1, rng())


@settings(max_examples=60)
@given(some.integers(1, 30), some.integers(1, 400), some.sampled_from(["with_replacement", "prob_half"]))
def test_two_streams_have_their_shares(labeled, unlabeled, sampling):
    weights = rng(unlabeled).random(unlabeled)
    known, drawn = two_streams(labeled, weights, 12, 5, sampling, rng())
    assert known.shape == (max(1, unlabeled // 2 // 7), 5)
    assert drawn.shape == (len(known), 7)
    assert known.max() < labeled
    assert drawn.max() < unlabeled
    if sampling == "prob_half" and unlabeled // 2 >= 7:
        assert len(set(drawn.ravel())) == drawn.size
    counts = np.bincount(known.ravel(), minlength=labeled)
    assert counts.max() - counts.min() <= 1


def test_the_epoch_of_cifar_has_the_papers_length():
    known, drawn = two_streams(100, np.ones(49_900, np.float32), 128, 50, "with_replacement", rng())
    assert (known.shape, drawn.shape) == ((319, 50), (319, 78))
