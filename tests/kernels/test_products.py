"""Rough products only save work: what is picked, and at what distance, has the same bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import distances, passes, products
from ray_al.kernels.kcenter import kcenter_greedy
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
            patch.setattr(passes, "_HALF_BYTES", kept)
            patch.setattr(passes, "_SOON", 1)
            found.append([*kcenter_greedy(x, 60, np.arange(40), NO_IDS, 1), *badge(x, probs, 60, np.arange(40), 1)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 300), st.floats(-3, 3), st.booleans())
def test_errors_are_no_larger_than_said(seed: int, width: int, spread: float, halves: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(64, width)) * 10 ** (spread * rng.random(width))).astype(np.float32)
    rows = Rows(x)
    moved = torch.from_numpy(x[:9] - rows.shift)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "HALVES", halves)
        error, rounding = products.errors()
        rough = np.concatenate(rows.sweep(lambda _, product: product.numpy().copy(), moved, rough=True), axis=1)
    shifted = (x - rows.shift).astype(np.float64)
    true = shifted[:9] @ shifted.T
    lengths = np.sqrt(np.square(shifted).sum(1))
    assert (np.abs(rough - true) <= error * lengths[:9, None] * lengths + rounding * np.abs(rough) + 1e-30).all()


def test_measures_are_those_of_float64() -> None:
    rng = np.random.default_rng(0)
    x, shift = rng.normal(size=(50, 77)).astype(np.float32), rng.normal(size=77).astype(np.float32)
    norms, raw = np.empty(50, np.float32), np.empty(50, np.float32)
    distances.measure(x, shift, norms, raw)
    np.testing.assert_allclose(norms, np.square((x - shift).astype(np.float64)).sum(1), rtol=2e-6)
    half = torch.empty((50, 77), dtype=torch.bfloat16)
    distances.to_half(x, shift, half.view(torch.uint16).numpy())
    assert torch.equal(half, torch.from_numpy(x - shift).bfloat16())
    np.testing.assert_allclose(raw, np.square(x.astype(np.float64)).sum(1), rtol=2e-6)
