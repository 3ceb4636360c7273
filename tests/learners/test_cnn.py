"""The CNN learner: it learns, repeats itself bit for bit, and leaves no trace in torch's global state."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import NONE, PseudoLabels
from ray_al.core.seeds import stream
from ray_al.learners import networks
from ray_al.learners.cnn import Cnn, CnnModel
from tests.fakes import array_pool, toy_pool

QUICK = Cnn(epochs=1, width=4, device="cpu")


@pytest.fixture(autouse=True)
def few_steps(request, monkeypatch):
    """Most tests are not about accuracy."""
    if "learns" not in request.node.name:
        monkeypatch.setattr(networks, "FEWEST_STEPS", 12)


def fit(pool: Pool, labeled: LabeledSet, cnn: Cnn = QUICK, seed: int = 0, assume: PseudoLabels = NONE) -> CnnModel:
    model = cnn.fit(labeled, assume, pool, stream(seed, "init-weights"))
    assert isinstance(model, CnnModel)
    return model


def test_learns_digits_from_100_labels():
    x, y = load_digits(return_X_y=True)
    images = (x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    pool = array_pool({("images", "pool"): images[:1000], ("images", "test"): images[1000:]}, 10)
    model = fit(pool, LabeledSet(np.arange(100), y[:100]), Cnn(device="cpu"))
    probs = model.output("probs", split="test")
    assert probs.shape == (797, 10)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == y[1000:]).mean() > 0.80  # 0.88 measured


def test_learns_ten_labels_by_heart():
    toy = toy_pool(classes=5)
    labeled = LabeledSet(toy.labeled.ids[:10], toy.labeled.labels[:10])
    probs = fit(toy.pool, labeled, Cnn(device="cpu")).output("probs", labeled.ids)
    assert (probs.argmax(1) == labeled.labels).all()


def test_equal_streams_give_equal_bits_whatever_the_global_state():
    toy = toy_pool()
    first = fit(toy.pool, toy.labeled).output("probs")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002 - the global state is what must not matter
        torch.set_num_threads(3)
        seeded = torch.get_rng_state()
        again = fit(toy.pool, toy.labeled).output("probs")
        assert torch.get_num_threads() == 3
        assert torch.equal(torch.get_rng_state(), seeded)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert (first == again).all()
    assert (first != fit(toy.pool, toy.labeled, seed=1).output("probs")).any()


def test_a_row_does_not_depend_on_what_is_asked_beside_it():
    toy = toy_pool(size=300)
    model = fit(toy.pool, toy.labeled)
    rows = np.array([299, 5, 17, 5])
    apart = {head: model.output(head, rows) for head in ("probs", "embedding")}
    for head, values in apart.items():
        assert (values == model.output(head)[rows]).all()
        assert (values == model.output(head, rows)).all()


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 32, 3), (64, 64, 3), (9, 12, 1)])
def test_takes_images_of_any_size_and_leaves_them_unchanged(shape):
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    pool = array_pool({("images", "pool"): images}, 3)
    before = images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(pool, LabeledSet(np.arange(6), np.arange(6) % 3))
        embedding = model.output("embedding")
    assert embedding.shape == (12, 16)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    assert (images == before).all()


def test_its_optimizer_is_torchs_adamw():
    start = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32))
    ours, reference = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer, torchs = networks.AdamW([ours], 0.1), torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        for parameter in (ours, reference):
            parameter.grad = None
            (parameter**3).sum().backward()
        optimizer.step(0.01)
        torchs.step()
    torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fits_a_handful_of_labels(count):
    toy = toy_pool()
    probs = fit(toy.pool, LabeledSet(np.arange(count), toy.labels[:count])).output("probs", split="test")
    assert probs.shape == (40, 4)
    assert np.isfinite(probs).all()


def test_learns_from_one_class_that_others_are_absent():
    toy = toy_pool()
    ids = toy.labeled.ids[toy.labeled.labels == 2]
    probs = fit(toy.pool, LabeledSet(ids, toy.labels[ids]), Cnn(width=4, device="cpu")).output("probs")
    assert probs.shape == (80, 4)
    assert (probs.argmax(1) == 2).all()


def test_pseudo_labels_and_synthetic_images_are_trained_on():
    toy = toy_pool()
    plain = fit(toy.pool, toy.labeled).output("probs")
    assume = PseudoLabels(toy.unlabeled[:4], toy.labels[toy.unlabeled[:4]])
    assert (fit(toy.pool, toy.labeled, assume=assume).output("probs") != plain).any()
    more = LabeledSet(toy.labeled.ids, toy.labeled.labels, toy.pool.inputs("images", toy.unlabeled[:4]), assume.labels)
    assert (fit(toy.pool, more).output("probs") == fit(toy.pool, toy.labeled, assume=assume).output("probs")).all()


def test_a_loss_that_is_not_finite_names_the_epoch():
    toy = toy_pool()
    with pytest.raises(FloatingPointError, match="epoch"):
        fit(toy.pool, toy.labeled, Cnn(width=4, lr=1e30, device="cpu"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"width": -1}, "width is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"device": "tpu"}, "'tpu'; known: auto, cpu, cuda"),
    ],
)
def test_faulty_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Cnn(**arguments)


def test_refuses_what_it_cannot_learn_from():
    toy = toy_pool()
    with pytest.raises(ValueError, match="without labels"):
        fit(toy.pool, LabeledSet())
    with pytest.raises(ValueError, match="images"):
        fit(toy.pool, toy.labeled, Cnn(space="pixels"))
    odd = LabeledSet(images=np.zeros((1, 9, 9), np.uint8), image_labels=np.array([1]))
    with pytest.raises(ValueError, match=r"\(9, 9\)"):
        fit(toy.pool, odd)
    with pytest.raises(ValueError, match="no head 'mc_probs'"):
        fit(toy.pool, toy.labeled).output("mc_probs")


def test_importing_it_is_light():
    code = (
        "import sys, ray_al.learners.cnn as m; m.Cnn(); sys.exit(any(n in sys.modules for n in ('torch', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
