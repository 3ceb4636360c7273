"""The SVC learner: scikit-learn's own answers, the corner cases of small labeled sets, and exact repetition."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import NONE, PseudoLabels
from ray_al.core.seeds import stream
from ray_al.learners import libsvm, svc_search
from ray_al.learners.svc import Svc, SvcModel
from ray_al.learners.svc_search import GRID, GRID_C, GRID_GAMMA, class_scores
from tests.fakes import array_pool, toy_pool


def fit(
    pool: Pool, ids: np.ndarray, labels: np.ndarray, svc: Svc | None = None, assume: PseudoLabels = NONE
) -> SvcModel:
    model = (svc or Svc()).fit(LabeledSet(ids, labels[ids]), assume, pool, stream(0, "init-weights"))
    assert isinstance(model, SvcModel)
    return model


@pytest.fixture(scope="module")
def digits() -> tuple[Pool, np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return array_pool({("pixels", "pool"): x[:1200], ("pixels", "test"): x[1200:]}, 10), y[:1200], y[1200:]


@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 5, 8], [3, 8]])
def test_predicts_as_scikit_learns_grid_search_and_svc_do(digits, classes):
    pool, labels, _ = digits
    ids = np.flatnonzero(np.isin(labels, classes))[:120]
    model = fit(pool, ids, labels)
    grid = [
        {"kernel": ["linear"], "C": list(GRID_C)},
        {"kernel": ["rbf"], "C": list(GRID_C), "gamma": list(GRID_GAMMA)},
    ]
    search = GridSearchCV(SVC(), grid, cv=3).fit(pool.inputs("pixels", ids).astype(float), labels[ids])
    assert model.fitted.kernel == search.best_params_["kernel"]
    expected = search.predict(pool.inputs("pixels", split="test").astype(float))
    probs = model.output("probs", split="test")
    assert (np.array(sorted(set(classes)))[probs[:, sorted(set(classes))].argmax(1)] == expected).all()
    assert (probs.argmax(1) == expected).all()


def naive(inputs: np.ndarray, labels: np.ndarray, cv: int) -> GridSearchCV:
    grid = [
        {"kernel": ["linear"], "C": list(GRID_C)},
        {"kernel": ["rbf"], "C": list(GRID_C), "gamma": list(GRID_GAMMA)},
    ]
    return GridSearchCV(SVC(), grid, cv=cv).fit(inputs, labels)


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 6), st.sampled_from([10, 17, 33, 60]))
@settings(max_examples=25, deadline=None)
def test_chooses_and_predicts_as_grid_search_does_on_any_inputs(seed: int, classes: int, width: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.r_[np.repeat(np.arange(classes), 2), rng.integers(0, classes, size)]
    centers = rng.normal(size=(classes, width)) * rng.choice([0.3, 1.5])
    rows = (centers[truth] + rng.normal(size=(len(truth), width))).astype(np.float32)
    asked = rng.normal(size=(200, width)).astype(np.float32)
    pool = array_pool({("codes", "pool"): rows, ("codes", "test"): asked}, classes)
    folds = min(3, int(np.bincount(truth).min()))
    reference = naive(rows.astype(float), truth, folds)
    found = reference.best_params_
    setting, _ = svc_search.search(rows.astype(float), truth, GRID, folds)
    assert setting == (found["kernel"], found["C"], found.get("gamma", "scale"))
    model = fit(pool, np.arange(len(truth)), truth)
    assert (model.fitted.kernel, model.fitted.c) == (found["kernel"], found["C"])
    np.testing.assert_array_equal(model.output("probs", split="test").argmax(1), reference.predict(asked.astype(float)))


@pytest.mark.parametrize("classes", [2, 3])
def test_libsvm_without_checks_is_svc_bit_for_bit(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(classes)
    x, targets = rng.normal(size=(50, 3)), np.arange(50) % classes
    kernel, others = x @ x.T, rng.normal(size=(20, 3)) @ x.T
    assert libsvm._binding() is not None, "scikit-learn's binding has changed: fits go through SVC, and are slow"
    found = libsvm.train(kernel, targets, 3.0)
    reference = SVC(C=3.0, kernel="precomputed", decision_function_shape="ovo").fit(kernel, targets)
    values = reference.decision_function(others)
    np.testing.assert_array_equal(libsvm.decisions(found, others), -values[:, None] if classes == 2 else values)
    np.testing.assert_array_equal(found.support, reference.support_)
    monkeypatch.setattr(libsvm, "_binding", lambda: None)
    slow = libsvm.train(kernel, targets, 3.0)
    for name in ("support", "counts", "duals", "intercepts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(slow, name))
    np.testing.assert_allclose(libsvm.decisions(slow, others), libsvm.decisions(found, others), atol=1e-12)


def test_libsvm_needs_members_of_every_class() -> None:
    with pytest.raises(ValueError, match=r"theirs are \[2, 0, 1\]"):
        libsvm.train(np.eye(3), np.array([0, 2, 0]), 1.0)


def test_a_labeled_set_too_large_for_a_matrix_gives_the_same_answers(digits, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, labels, _ = digits
    whole = fit(pool, np.arange(90), labels)
    monkeypatch.setattr(svc_search, "MATRIX_ROWS", 40)
    rows = fit(pool, np.arange(90), labels)
    assert (whole.fitted.kernel, whole.fitted.gamma) == (rows.fitted.kernel, rows.fitted.gamma)
    expected = whole.output("probs", split="test")
    np.testing.assert_allclose(rows.output("probs", split="test"), expected, atol=2e-3)
    assert (rows.output("probs", split="test").argmax(1) == expected.argmax(1)).all()


def test_inputs_that_are_not_finite_are_refused() -> None:
    x = np.ones((8, 3), np.float32)
    x[5, 1] = np.nan
    with pytest.raises(ValueError, match="space 'ssl' has values that are not finite"):
        fit(array_pool({("ssl", "pool"): x}, 2), np.arange(8), np.arange(8) % 2)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_fixed_setting_has_scikit_learns_decision_values(classes):
    toy = toy_pool(classes=classes)
    model = fit(toy.pool, toy.labeled.ids, toy.labels, Svc(grid=False, C=3.0, gamma=0.05))
    x = toy.pool.inputs("pixels").astype(float)
    reference = SVC(C=3.0, gamma=0.05, decision_function_shape="ovo").fit(x[: len(x) // 2], toy.labeled.labels)
    values = reference.decision_function(x)
    # libsvm stops at a tolerance of 1e-3 in the dual, and its path there depends on the kernel's last bits.
    np.testing.assert_allclose(model.fitted.decisions(x), -values[:, None] if classes == 2 else values, atol=5e-3)


def test_learns_digits_and_its_probabilities_are_calibrated(digits):
    pool, labels, test_labels = digits
    probs = fit(pool, np.arange(300), labels).output("probs", split="test")
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)
    assert (probs.argmax(1) == test_labels).mean() > 0.88  # 0.92 measured
    assert -np.log(probs[np.arange(len(probs)), test_labels]).mean() < 0.5  # a constant guess has 2.3


def test_absent_classes_keep_their_columns():
    toy = toy_pool(classes=5)
    ids = toy.labeled.ids[np.isin(toy.labeled.labels, [1, 3, 4])]
    probs = fit(toy.pool, ids, toy.labels).output("probs")
    assert probs.shape == (80, 5)
    assert probs[:, [0, 2]].max() < 1e-9
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)


def test_one_class_is_predicted_constantly():
    toy = toy_pool()
    ids = toy.labeled.ids[toy.labeled.labels == 2]
    probs = fit(toy.pool, ids, toy.labels).output("probs", split="test")
    assert (probs.argmax(1) == 2).all()
    assert probs[:, 2].min() > 1 - 1e-9
    assert fit(toy.pool, ids[:1], toy.labels).output("probs").shape == (80, 4)


def test_a_class_of_one_member_skips_the_search():
    toy = toy_pool()
    many, one = toy.labeled.ids[toy.labeled.labels == 0], toy.labeled.ids[toy.labeled.labels == 1][:1]
    model = fit(toy.pool, np.concatenate([many, one]), toy.labels)
    variance = toy.pool.inputs("pixels", np.concatenate([many, one])).astype(float).var()
    assert (model.fitted.kernel, model.fitted.gamma) == ("rbf", pytest.approx(1 / (64 * variance)))
    linear = fit(toy.pool, np.concatenate([many, one]), toy.labels, Svc(grid=False, kernel="linear"))
    assert linear.fitted.kernel == "linear"


def test_folds_shrink_to_the_smallest_class():
    toy = toy_pool()
    ids = np.concatenate([toy.labeled.ids[toy.labeled.labels == c][:2] for c in range(4)])
    model = fit(toy.pool, ids, toy.labels, Svc(folds=5))
    assert model.output("probs").shape == (80, 4)


def test_equal_inputs_do_not_divide_by_zero():
    x = np.ones((8, 3), np.float16)
    pool = array_pool({("ssl", "pool"): x}, 2)
    probs = fit(pool, np.arange(8), np.arange(8) % 2).output("probs")
    assert np.isfinite(probs).all()


def test_pseudo_labels_are_trained_on():
    toy = toy_pool(classes=2)
    ones = toy.labeled.ids[toy.labeled.labels == 1]
    assumed = toy.unlabeled[toy.labels[toy.unlabeled] == 0]
    model = fit(toy.pool, ones, toy.labels, assume=PseudoLabels(assumed, toy.labels[assumed]))
    assert (model.output("probs").argmax(1) == toy.labels).mean() > 0.95


def test_a_row_does_not_depend_on_its_neighbors_nor_on_the_order_of_calls(digits):
    pool, labels, _ = digits
    model = fit(pool, np.arange(100), labels)
    whole = model.output("probs")
    rows = np.array([1100, 3, 77, 3])
    assert (model.output("probs", rows) == whole[rows]).all()
    np.random.default_rng(0)
    assert (fit(pool, np.arange(100), labels).output("probs") == whole).all()


def test_takes_any_space_and_leaves_it_unchanged():
    toy = toy_pool()
    before = toy.pool.inputs("images").copy()
    model = fit(toy.pool, toy.labeled.ids, toy.labels, Svc(space="images"))
    assert (toy.pool.inputs("images") == before).all()
    embedding = model.output("embedding", np.array([5, 2]))
    assert embedding.dtype == np.float32
    assert (embedding == before[[5, 2]].reshape(2, -1)).all()
    assert fit(toy.pool, toy.labeled.ids, toy.labels).output("embedding", split="test").shape == (40, 64)


def test_a_circular_vote_goes_to_the_lowest_class_as_in_libsvm():
    scores = class_scores(np.array([[0.1, -2.0, 3.0]]), 3)  # 0 beats 1, 2 beats 0, 1 beats 2
    assert scores.argmax(1).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"C": 0.0}, "C is 0.0"),
        ({"C": float("nan")}, "C is nan"),
        ({"kernel": "poly"}, "'poly'; known: linear, rbf"),
        ({"gamma": "auto"}, "'auto'"),
        ({"gamma": -1.0}, "-1.0"),
    ],
)
def test_faulty_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Svc(**arguments)


def test_refuses_what_it_cannot_learn_from():
    toy = toy_pool()
    images = LabeledSet(images=np.zeros((1, 8, 8), np.uint8), image_labels=np.array([1]))
    with pytest.raises(ValueError, match="synthetic"):
        Svc().fit(images, NONE, toy.pool, stream(0, "init-weights"))
    with pytest.raises(ValueError, match="without labels"):
        Svc().fit(LabeledSet(), NONE, toy.pool, stream(0, "init-weights"))
    with pytest.raises(ValueError, match="no head 'mc_probs'"):
        fit(toy.pool, toy.labeled.ids, toy.labels).output("mc_probs")


def test_importing_it_is_light():
    code = (
        "import sys, ray_al.learners.svc as m; m.Svc(); sys.exit(any(n in sys.modules for n in ('torch', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
