"""Committees of logistic regressions: what each member is fitted on, and what the model offers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.linear import LinearCommittee, LinearHead
from ray_al.core.query import NONE, PseudoLabels
from ray_al.core.seeds import stream
from ray_al.learners.committee import LogRegCommittee, resample
from ray_al.learners.logreg import LogReg
from ray_al.methods import resolve
from ray_al.services.pool_scorer import PoolScorer
from tests.fakes import toy_pool

TOY = toy_pool()


def fitted(learner=None, labeled=TOY.labeled, assume=NONE, seed=0):
    learner = learner or LogRegCommittee(service=PoolScorer(TOY.pool.reader))
    return learner.fit(labeled, assume, TOY.pool, stream(seed, "init-weights"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 99))
def test_a_resample_draws_as_many_as_there_are_and_misses_no_class(labels, seed):
    labels = np.array(labels)
    rows = resample(labels, np.random.default_rng(seed))
    assert rows.dtype == np.int64
    assert set(labels[rows]) == set(labels)
    drawn, added = rows[: len(labels)], rows[len(labels) :]
    assert len(set(labels[added])) == len(added)  # one of each
    assert not set(labels[added]) & set(labels[drawn])
    np.testing.assert_array_equal(rows, resample(labels, np.random.default_rng(seed)))


def test_draws_are_even_and_so_is_what_stands_in_for_a_missed_class():
    labels = np.array([0, 0, 0, 0, 1, 1])
    rng, counts, stand_in = np.random.default_rng(0), np.zeros(6), np.zeros(6)
    for _ in range(3000):
        rows = resample(labels, rng)
        counts += np.bincount(rows[:6], minlength=6)
        stand_in += np.bincount(rows[6:], minlength=6)
    np.testing.assert_allclose(counts, 3000, rtol=0.09)  # five standard deviations
    missed = 3000 * (4 / 6) ** 6  # neither of the two of class 1
    np.testing.assert_allclose(stand_in[4:], missed / 2, rtol=0.35)


def test_probabilities_are_the_mean_of_the_members():
    model = fitted()
    members, probs = model.output("mc_probs"), model.output("probs")
    assert members.shape == (5, TOY.pool.size, 4)
    assert members.dtype == probs.dtype == np.float32
    np.testing.assert_allclose(probs, members.mean(0), atol=1e-6)
    assert (members.std(0).max(0) > 1e-3).all()  # they differ, in every class
    ids = np.array([70, 3, 55])
    np.testing.assert_allclose(model.output("mc_probs", ids), members[:, ids], atol=1e-6)
    assert model.output("mc_probs", split="test").shape == (5, 40, 4)
    np.testing.assert_array_equal(model.output("embedding", ids), TOY.pool.inputs("pixels", ids))
    accuracy = (model.output("probs", split="test").argmax(1) == TOY.test_labels).mean()
    assert accuracy > 0.9


def test_members_are_fits_of_logreg_on_the_resamples_of_the_stream():
    service = PoolScorer(TOY.pool.reader)
    model = fitted(LogRegCommittee(members=3, l2=0.5, service=service), seed=4)
    rng, ids, labels = stream(4, "init-weights"), TOY.labeled.ids, TOY.labeled.labels
    for head in model.linear.heads:
        rows = resample(labels, rng)
        want = LogReg(l2=0.5, service=service).fit(LabeledSet(ids[rows], labels[rows]), NONE, TOY.pool, rng).linear
        np.testing.assert_array_equal(head.weights, want.weights)
        np.testing.assert_array_equal(head.bias, want.bias)
    other = fitted(LogRegCommittee(members=3, l2=0.5, service=service), seed=5)
    assert not np.array_equal(model.linear.weights, other.linear.weights)


def test_one_label_a_class_makes_members_that_differ_and_deny_none_of_them():
    ids = np.array([np.flatnonzero(TOY.labels == label)[0] for label in range(3)])  # the fourth class was never seen
    members = fitted(labeled=LabeledSet(ids, TOY.labels[ids])).output("mc_probs")
    assert (members[:, :, :3] > 0).all()
    assert (members[:, :, 3] == 0).all()
    assert members.std(0).max() > 1e-3


def test_pseudo_labels_are_drawn_too():
    unlabeled = TOY.unlabeled[:20]
    model = fitted(assume=PseudoLabels(unlabeled, TOY.labels[unlabeled]))
    assert not np.array_equal(model.linear.weights, fitted().linear.weights)


def test_faults_are_named():
    with pytest.raises(ValueError, match="2 to 1000 members, not 1"):
        LogRegCommittee(members=1)
    assert resolve("learner", "logreg_committee", {"members": 1})[1] == [
        "logreg_committee needs 2 to 1000 members, not 1"
    ]
    with pytest.raises(ValueError, match="l2 < 1e12, not 0"):
        LogRegCommittee(l2=0)
    with pytest.raises(ValueError, match="needs a service"):
        fitted(LogRegCommittee())
    images = LabeledSet(TOY.labeled.ids, TOY.labeled.labels, np.zeros((1, 8, 8)), np.array([0]))
    with pytest.raises(ValueError, match="labeled synthetic images"):
        fitted(labeled=images)
    with pytest.raises(ValueError, match="no head 'predicted_loss'; it has: embedding, mc_probs, probs"):
        fitted().output("predicted_loss")
    one = LinearHead("pixels", np.zeros((4, 64), np.float32), np.zeros(4, np.float32))
    two = LinearHead("pixels", np.zeros((3, 64), np.float32), np.zeros(3, np.float32))
    for heads in ((), (one, two)):
        with pytest.raises(ValueError, match="heads of one shape over its space 'pixels'"):
            LinearCommittee("pixels", heads)
    with pytest.raises(ValueError, match="over its space 'other'"):
        LinearCommittee("other", (one,))
