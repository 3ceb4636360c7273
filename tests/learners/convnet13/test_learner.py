"""The learner: its four settings learn, repeat themselves bit for bit, are saved and loaded, and name mistakes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ray_al.core.interfaces import StatefulLearner
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.oracle import TruthOracle
from ray_al.core.preparation import PreparedLearner
from ray_al.core.query import NONE, PseudoLabels, ask_pool
from ray_al.core.seeds import stream
from ray_al.core.trajectory import Protocol, Trajectory, run_trajectory
from ray_al.learners.convnet13 import model as model_module
from ray_al.learners.convnet13.learner import Convnet13
from ray_al.methods import build, find, resolve
from tests.fakes import Toy, array_pool, toy_pool

TINY = Convnet13(width=2, epochs=2, sup_epochs=1, batch=8, k=4, device="cpu")
SEMI = dataclasses.replace(TINY, semi=True, semi_batch=12, labeled_batch=5)
CODE = dataclasses.replace(SEMI, pseudo_sampling="prob_half", loss_weight="w")  # as the released code has it


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool(size=60, test_size=20, classes=3)


def fit(toy: Toy, learner: Convnet13, labeled: LabeledSet | None = None, seed: int = 0, assume: PseudoLabels = NONE):
    return learner.fit(toy.labeled if labeled is None else labeled, assume, toy.pool, stream(seed, "init-weights"))


def test_it_learns_from_labels_and_from_pseudo_labels():
    """Classes are shades: moved and mirrored images keep them."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(180) % 3)
    shades = np.array([[200, 80, 60], [60, 190, 80], [70, 60, 210]])[truth]
    images = np.clip(shades[:, None, None] + rng.normal(0, 30, (180, 32, 32, 3)), 0, 255).astype(np.uint8)
    pool = array_pool({("images", "pool"): images[:120], ("images", "test"): images[120:]}, 3)
    few = LabeledSet(np.arange(9), truth[:9])
    base = Convnet13(width=4, epochs=25, batch=9, device="cpu")
    semi = dataclasses.replace(base, semi=True, epochs=4, sup_epochs=10, semi_batch=24, labeled_batch=9, k=8)
    for learner in (base, semi):
        found = learner.fit(few, NONE, pool, stream(0, "init-weights")).output("probs", split="test")
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        assert (found.argmax(1) == truth[120:]).mean() > 0.9


@pytest.mark.parametrize("learner", [TINY, SEMI, CODE])
def test_equal_streams_give_equal_bits_whatever_the_global_state(toy, learner):
    first = fit(toy, learner).output("probs")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002 - the global state is what must not matter
        torch.set_num_threads(3)
        seeded = torch.get_rng_state()
        again = fit(toy, learner).output("probs")
        assert torch.get_num_threads() == 3
        assert torch.equal(torch.get_rng_state(), seeded)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert (first == again).all()
    assert (first != fit(toy, learner, seed=1).output("probs")).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"pseudo_sampling": "prob_half"},
        {"loss_weight": "w"},
        {"graph": "reciprocal"},
        {"alpha": 0.5},
        {"k": 9},
        {"clean_features": False},
        {"sup_epochs": 0},
        {"zero_at": 210.0},
    ],
)
def test_every_option_of_semi_counts(toy, changes):
    few = LabeledSet(toy.labeled.ids[:9], toy.labeled.labels[:9])
    changed = fit(toy, dataclasses.replace(SEMI, **changes), few).output("probs")
    assert (fit(toy, SEMI, few).output("probs") != changed).any()


def test_heads_have_their_shapes_and_a_row_does_not_depend_on_its_neighbors(toy, monkeypatch):
    found = fit(toy, TINY)
    rows = np.array([59, 5, 17, 5])
    apart = {head: found.output(head, rows) for head in ("probs", "embedding")}
    assert apart["probs"].shape == (4, 3)
    assert apart["embedding"].shape == (4, 2)
    np.testing.assert_allclose(np.linalg.norm(apart["embedding"], axis=1), 1, rtol=1e-5)
    for head, values in apart.items():
        assert (values == found.output(head)[rows]).all()
    monkeypatch.setattr(model_module, "_BLOCK", 7)
    parts = dataclasses.replace(found, whole={})
    for head in apart:
        assert (parts.output(head) == found.output(head)).all()
        assert not parts.output(head).flags.writeable
    with pytest.raises(ValueError, match="no head 'mc_probs'; known: embedding, probs"):
        found.output("mc_probs")


def test_its_history_has_a_row_per_epoch_and_what_is_audited(toy):
    asked = []

    def audit(ids: np.ndarray, guesses: np.ndarray) -> float:
        asked.append(ids)
        return float((toy.labels[ids] == guesses).mean())

    learner = dataclasses.replace(SEMI, audit=audit)
    fit(toy, learner)
    assert [(row["stage"], row["epoch"]) for row in learner.history] == [("sup", 0), ("semi", 0), ("semi", 1)]
    last = learner.history[-1]
    assert 0 <= last["pseudo_accuracy"] <= 1
    assert 0 < last["weights_mean"] <= 1
    assert last["steps"] == 30 // 2 // 7
    assert {"loss", "lr", "seconds", "feature_seconds", "graph_seconds", "solve_seconds", "weights_zero"} <= set(last)
    assert [ids.tolist() for ids in asked] == [toy.unlabeled.tolist()] * 2
    json.dumps(learner.history)


def test_an_audit_changes_nothing(toy):
    audited = dataclasses.replace(SEMI, audit=lambda ids, guesses: 1.0)
    assert (fit(toy, audited).output("probs") == fit(toy, SEMI).output("probs")).all()


def test_a_saved_model_is_the_same_bit_for_bit(toy):
    learner = dataclasses.replace(SEMI)
    assert isinstance(learner, StatefulLearner)
    found = fit(toy, learner)
    other = dataclasses.replace(SEMI)
    for same in (other.load(learner.save(found), toy.pool), other.restore(learner.state(), toy.pool)):
        for head in ("probs", "embedding"):
            assert (same.output(head, split="test") == found.output(head, split="test")).all()
    assert other.state() == learner.state()
    assert other.history == []


def test_a_run_goes_on_where_it_was_cut_with_its_state_or_without(toy):
    class Uncertain:
        def select(self, round):
            top = round.model.output("probs", round.unlabeled).max(1)
            return ask_pool(round.unlabeled[np.argsort(top, kind="stable")[: round.batch]])

    def trajectory(learner):
        oracle = TruthOracle(toy.labels)
        return Trajectory(
            Uncertain(), learner, Protocol(6, True, 5, 3), 0, toy.pool, oracle, toy.test_labels, lambda model: None
        )

    learner, whole, states = dataclasses.replace(SEMI), [], []
    for record in run_trajectory(trajectory(learner)):
        whole.append(record)
        states.append(learner.state())
    for cut in (1, 2):
        for state in (states[cut - 1], None):
            rest = list(run_trajectory(trajectory(dataclasses.replace(SEMI)), whole[:cut], state))
            assert [r.asked_ids.tolist() for r in rest] == [r.asked_ids.tolist() for r in whole[cut:]]
            assert [r.nll for r in rest] == [r.nll for r in whole[cut:]]


@pytest.mark.parametrize("saved", [b"", b"no tensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_model_is_refused(toy, saved):
    with pytest.raises(ValueError, match=r"no safetensors file|not the weights of a convnet13"):
        TINY.load(saved, toy.pool)


def test_a_model_of_other_classes_or_width_is_refused(toy):
    learner = dataclasses.replace(TINY)
    saved = learner.save(fit(toy, learner))
    with pytest.raises(ValueError, match="other classes, or of another width"):
        dataclasses.replace(TINY, width=3).load(saved, toy.pool)
    with pytest.raises(ValueError, match="other classes, or of another width"):
        TINY.load(saved, dataclasses.replace(toy.pool, classes=4))


def test_pseudo_labels_and_synthetic_images_are_trained_on(toy):
    plain = fit(toy, TINY).output("probs")
    assume = PseudoLabels(toy.unlabeled[:4], toy.labels[toy.unlabeled[:4]])
    assumed = fit(toy, TINY, assume=assume).output("probs")
    assert (assumed != plain).any()
    images = toy.pool.inputs("images", toy.unlabeled[:4])
    more = LabeledSet(toy.labeled.ids, toy.labeled.labels, images, assume.labels)
    assert (fit(toy, TINY, more).output("probs") == assumed).all()
    assert (fit(toy, SEMI, more).output("probs") != fit(toy, SEMI).output("probs")).any()


@pytest.mark.parametrize("count", [1, 2])
def test_fits_a_handful_of_labels(toy, count):
    few = LabeledSet(np.arange(count), toy.labels[:count])
    for learner in (TINY, SEMI):
        assert np.isfinite(fit(toy, learner, few).output("probs")).all()


def test_without_unlabeled_images_semi_is_supervised(toy):
    everything = LabeledSet(np.arange(60), toy.labels)
    learner = dataclasses.replace(SEMI)
    fit(toy, learner, everything)
    assert {row["stage"] for row in learner.history} == {"sup"}


def test_refuses_what_it_cannot_learn_from(toy):
    with pytest.raises(ValueError, match="without labels"):
        fit(toy, TINY, LabeledSet())
    with pytest.raises(ValueError, match="32 pixels a side"):
        fit(toy, dataclasses.replace(TINY, space="pixels"))
    with pytest.raises(ValueError, match=r"makes its own pseudo-labels"):
        fit(toy, SEMI, assume=PseudoLabels(toy.unlabeled[:1], np.array([0])))
    odd = LabeledSet(images=np.zeros((1, 9, 9), np.uint8), image_labels=np.array([1]))
    with pytest.raises(ValueError, match=r"\(9, 9\)"):
        fit(toy, TINY, odd)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"sup_epochs": -1}, "sup_epochs is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"graph": "mutual"}, "unknown graph 'mutual'; known: union, reciprocal"),
        ({"pretrain": "simclr"}, "unknown pretrain 'simclr'; known: none, deepcluster"),
        ({"pseudo_sampling": "half"}, "known: with_replacement, prob_half"),
        ({"semi_batch": 50}, r"semi_batch is 50; it must be more than labeled_batch \(50\)"),
        ({"zero_at": 100.0}, "zero_at is 100.0; it must be at least the 200 epochs"),
        ({"pretrain_clusters": 1}, "pretrain_clusters is 1"),
        ({"device": "tpu"}, "'tpu'; known: auto, cpu, cuda"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
    ],
)
def test_faulty_options_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Convnet13(**arguments)


def test_options_of_the_table_have_the_papers_defaults():
    values, faults = resolve("learner", "convnet13", {"semi": True})
    assert not faults
    assert "audit" not in values
    assert "last" not in values
    expected = {"epochs": 200, "sup_epochs": 200, "batch": 32, "semi_batch": 128, "labeled_batch": 50, "lr": 0.2}
    expected |= {"k": 50, "alpha": 0.99, "graph": "union", "pseudo_sampling": "with_replacement", "loss_weight": "none"}
    assert expected.items() <= values.items()
    assert find("learner", "convnet13").on_images
    made = build("learner", "convnet13", values, audit=len)
    assert made.audit is len
    assert resolve("learner", "convnet13", {"audit": "x"})[1]


def test_preparations_are_equal_when_their_settings_are():
    one = dataclasses.replace(TINY, pretrain="deepcluster", pretrain_epochs=1)
    assert isinstance(one, PreparedLearner)
    assert TINY.preparation(3) is None
    same = dataclasses.replace(one, semi=True, epochs=9, k=3)
    assert one.preparation(3).name == same.preparation(3).name
    assert one.preparation(3).config["clusters"] == 15
    others = [{"pretrain_seed": 1}, {"width": 3}, {"pretrain_lr": 0.1}, {"pretrain_epochs": 2}, {"pretrain_batch": 64}]
    names = {dataclasses.replace(one, **change).preparation(3).name for change in others}
    assert len({*names, one.preparation(3).name, one.preparation(4).name}) == 7


def test_pre_training_starts_the_fit(toy):
    learner = dataclasses.replace(TINY, pretrain="deepcluster", pretrain_epochs=1, pretrain_clusters=4)
    prepared = learner.preparation(3)
    images = toy.pool.inputs("images")
    arrays = {("images", split): toy.pool.inputs("images", split=split).copy() for split in ("pool", "test")}
    made = prepared.build(images, prepared.config)["weights"]
    assert (made == prepared.build(images, prepared.config)["weights"]).all()
    pool = array_pool({**arrays, (prepared.name, "weights"): made}, 3)
    rng = stream(0, "init-weights")
    assert (learner.fit(toy.labeled, NONE, pool, rng).output("probs") != fit(toy, TINY).output("probs")).any()


def test_importing_it_is_light():
    code = (
        "import sys, ray_al.learners.convnet13.learner as m; m.Convnet13(pretrain='deepcluster').preparation(10); "
        "sys.exit(any(n in sys.modules for n in ('torch', 'sklearn', 'faiss')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
