"""Rough products only save work: what is picked, and at what distance, has the same bits."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ray_al.kernels import distances, outer_distances, passes, products
from ray_al.kernels.block import Block
from ray_al.kernels.budget import Budget
from ray_al.kernels.geometry import GradientEmbedding
from ray_al.kernels.kcenter import kcenter_greedy
from ray_al.kernels.kmeans import kmeans
from ray_al.kernels.kmeanspp import badge
from ray_al.kernels.passes import Rows

NO_IDS = np.empty(0, np.int64)


def _rows(rng: np.random.Generator, kind: str, offset: float) -> np.ndarray:
    x = rng.normal(size=(900, 37)) * np.exp(-0.05 * np.arange(37)) * 20 + offset
    x[600:] = x[:300]  # duplicates
    x[300:320] = x[0] + rng.normal(size=(20, 37)) * 1e-3  # close ones
    return x.clip(0 if kind == "u1" else -np.inf, 255).astype(kind)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20), kind=st.sampled_from(["<f4", "<f2", "u1"]), offset=st.sampled_from([0.0, 3.0, 100.0])
)
def test_picks_are_the_same(seed: int, kind: str, offset: float) -> None:
    rng = np.random.default_rng(seed)
    x = _rows(rng, kind, offset)
    logits = rng.normal(size=(900, 5)) * 3
    probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    probs[600:] = probs[:300]
    found = []
    for halves, kept in ((False, 0), (True, 0), (True, 2**20)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "HALVES", halves)
            patch.setattr(passes, "HALVES_BYTES", Budget(kept))
            patch.setattr(passes, "_SOON", 1)
            found.append([*kcenter_greedy(x, 60, np.arange(40), NO_IDS, 1), *badge(x, probs, 60, np.arange(40), 1)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-10, 1e10, 1e18])
def test_picks_at_any_scale_are_those_of_float64(scale: float, halves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HALVES", halves)
    x = (np.random.default_rng(0).normal(size=(300, 5)) * scale).astype(np.float32)
    best = np.full(300, np.inf)
    picks = []
    for _ in range(40):
        picks.append(int(best.argmax()))
        best = np.minimum(best, np.square(x.astype(np.float64) - x[picks[-1]].astype(np.float64)).sum(1))
    found, _ = kcenter_greedy(x, 39, np.array([0]), NO_IDS, 1)
    assert [0, *found.tolist()] == picks
    assignment, _, inertia = kmeans(x, 20, 0)
    assert len(np.unique(assignment)) == 20
    means = np.array([x[assignment == c].mean(0, dtype=np.float64) for c in range(20)])
    wide = x.astype(np.float64)
    assert inertia == pytest.approx(np.square(wide - means[assignment]).sum(), rel=0.01, abs=1e-37)


@pytest.mark.parametrize("halves", [False, True])
def test_rows_too_large_for_their_distances_are_refused(halves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HALVES", halves)
    x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) * np.float32(4e18)
    with pytest.raises(ValueError, match="too large"):
        kcenter_greedy(x, 5, np.array([0]), NO_IDS, 1)
    with pytest.raises(ValueError, match="too large"):
        badge(x, np.full((50, 3), 1 / 3, np.float32), 5, NO_IDS, 1)


def test_gradients_whose_lengths_would_overflow_are_refused_and_unlike_ones_keep_their_distance() -> None:
    signs = np.repeat([1, -1], 160)
    rng = np.random.default_rng(0)
    h = np.stack([1e18 * (1 + 0.2 * rng.permutation(signs)) for _ in range(40)]).astype(np.float32)
    probs = np.tile(np.array([[0.9, 0.1, 0, 0], [0, 0, 0.9, 0.1]], np.float32), (20, 1))
    with pytest.raises(ValueError, match="too large"):
        badge(h, probs, 6, NO_IDS, 0)
    assert len(badge(h / 1e3, probs, 6, NO_IDS, 0)[0]) == 6
    q, other_q = np.float32([0.3, -0.3]), np.float32([1e-9, -1e-9])
    h, other_h = np.float32([1, 0]), np.float32([0, 1e9])
    true = np.square(np.outer(q, h).astype(float) - np.outer(other_q, other_h).astype(float)).sum()
    assert outer_distances.square(q, h, other_q, other_h) == pytest.approx(true, rel=1e-6)
    assert outer_distances.square(other_q, other_h, q, h) == pytest.approx(true, rel=1e-6)
    assert outer_distances.square(q, h, q, h) == 0


@pytest.mark.parametrize("halves", [False, True])
def test_duplicates_of_nearly_certain_rows_are_at_distance_0(halves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HALVES", halves)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        h = (rng.normal(size=(40, 20)) * 1e4).astype(np.float32)
        probs = np.abs(rng.normal(size=(40, 4)) * 1e-23).astype(np.float32)
        probs[:, 0] = 1
        h[20:], probs[20:] = h[:20], probs[:20]
        best = np.full(40, np.inf)
        GradientEmbedding(h, probs).cover(best, np.arange(20))
        assert (best == 0).all()


def _constant(width: int) -> np.ndarray:
    """Rows of +-1.0039, whose rounding to bfloat16 has the same sign in every place."""
    signs = np.random.default_rng(0).choice([-1, 1], 64)
    return (np.ones((64, width)) * signs[:, None] * 1.0039).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 300), st.floats(-3, 3), st.booleans())
@example(0, 1, 3.0, True)
@example(0, 70_000, 0.0, False)
def test_errors_are_no_larger_than_said(seed: int, width: int, spread: float, halves: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(64, width)) * 10 ** (spread * rng.random(width))).astype(np.float32)
    _check_errors(x, halves)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("width", [1, 257, 70_000])
def test_errors_of_constant_rows(width: int, halves: bool) -> None:
    _check_errors(_constant(width), halves)


def _check_errors(x: np.ndarray, halves: bool) -> None:
    rows = Rows(x)
    moved = torch.from_numpy(x[:9] - rows.shift)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "HALVES", halves)
        error, rounding = products.errors(x.shape[1])
        rough = np.concatenate(rows.sweep(lambda _, product: product.numpy().copy(), moved, rough=True), axis=1)
    shifted = (x - rows.shift).astype(np.float64)
    true = shifted[:9] @ shifted.T
    lengths = np.sqrt(np.square(shifted).sum(1))
    assert (np.abs(rough - true) <= error * lengths[:9, None] * lengths + rounding * np.abs(rough) + 1e-30).all()


def test_measures_are_those_of_float64() -> None:
    rng = np.random.default_rng(0)
    x, shift = rng.normal(size=(50, 77)).astype(np.float32), rng.normal(size=77).astype(np.float32)
    norms, again = np.empty((2, 50), np.float32), np.empty((2, 50), np.float32)
    half, both = torch.empty((50, 77), dtype=torch.bfloat16), torch.empty((50, 77), dtype=torch.bfloat16)
    distances.measure(x, np.arange(50), shift, norms, np.empty((0, 0), np.uint16))
    np.testing.assert_allclose(norms[0], np.square((x - shift).astype(np.float64)).sum(1), rtol=2e-6)
    np.testing.assert_allclose(norms[1], np.square(x.astype(np.float64)).sum(1), rtol=2e-6)
    distances.measure(x, np.arange(50), shift, np.empty((2, 0), np.float32), half.view(torch.uint16).numpy())
    assert torch.equal(half, torch.from_numpy(x - shift).bfloat16())
    distances.measure(x, np.arange(50), shift, again, both.view(torch.uint16).numpy())
    assert torch.equal(both, half)
    assert (again == norms).all()


def test_a_pass_asks_for_norms_while_another_waits_to_keep_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HALVES", True)
    rows = passes.Rows(np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32))
    columns = torch.ones((1, 8))
    first = rows.norms()[0]
    for _ in range(passes._SOON):
        rows.sweep(lambda block, product: None, columns, rough=True)
    inside, proceed, found = threading.Event(), threading.Event(), []

    def slow(block: Block, product: torch.Tensor) -> None:
        inside.set()
        proceed.wait(10)
        found.append(block.norms[0, 0])

    others = [
        threading.Thread(target=rows.sweep, args=(slow,), daemon=True),
        threading.Thread(target=rows.sweep, args=(lambda block, product: None, columns, True), daemon=True),
    ]
    others[0].start()
    assert inside.wait(10)
    others[1].start()
    while not rows._fuse._waiting:
        time.sleep(0.01)
    proceed.set()
    for thread in others:
        thread.join(10)
        assert not thread.is_alive()
    assert found == [first]
    assert rows._half is not None


@pytest.mark.parametrize("routine", [None, products._find_linear()])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 700, 16), (192, 512, 33), (10, 2048, 257)])
def test_products_are_those_of_float64(
    shape: tuple[int, int, int], routine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_linear", routine)
    m, n, width = shape
    draw = torch.Generator().manual_seed(width)
    one, other = torch.randn((m, width), generator=draw), torch.randn((width, n), generator=draw).T  # not side by side
    for multiply in (products.multiply, products.multiply_once):
        error = (multiply(one, other) - one.double() @ other.double().T).abs()
        assert (error <= distances.noise(width) * one.norm(dim=1)[:, None] * other.norm(dim=1)).all()
