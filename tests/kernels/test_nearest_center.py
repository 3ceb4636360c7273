"""Nearest centers by bounds are the nearest of all."""

from unittest import mock

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import heads
from ray_al.kernels.compiled import least_ordered
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.masks import lowest, reaching
from ray_al.kernels.nearest_center import NearestCenter, largest
from ray_al.kernels.products import multiply
from ray_al.kernels.vectors import SHORTS


def _naive(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    gaps = x.astype(np.float64)[:, None] - centers[None]
    return np.einsum("nkd,nkd->nk", gaps, gaps)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    width=st.sampled_from([3, 70, 100]),
    clusters=st.sampled_from([1, 5, 70, 90]),
    decay=st.floats(0, 0.2),
    offset=st.sampled_from([0.0, 100.0]),
    kind=st.sampled_from(["<f4", "<f2", "u1"]),
    guess=st.sampled_from(["none", "right", "wrong"]),
    factors=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_center_is_nearer(
    seed: int, width: int, clusters: int, decay: float, offset: float, kind: str, guess: str, factors: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(700, width)) * 40 * np.exp(-decay * np.arange(width))
    x = (x + offset + 128 * (kind == "u1")).clip(0 if kind == "u1" else -np.inf, 255).astype(kind)
    x[350:] = x[:350]  # duplicates get one answer
    space = Euclidean(x)
    centers = x[rng.choice(700, clusters, replace=False)].astype(np.float64)
    centers[clusters // 2 :] += rng.normal(size=centers[clusters // 2 :].shape)
    truth = _naive(x, centers)
    near = {"none": np.full(700, -1), "right": truth.argmin(1), "wrong": truth.argmax(1)}[guess].astype(np.int32)
    with mock.patch.object(heads, "kind", return_value=factors):
        nearest, squares = NearestCenter(space, centers - space.shift)(centers - space.shift, near)
    found = np.take_along_axis(truth, nearest[:, None].astype(np.int64), 1)[:, 0]
    scale = 1e-5 * (x.astype(np.float64) ** 2).sum(1) + 1e-6
    assert (found <= truth.min(1) + scale).all()
    assert np.abs(squares - found).max() <= scale.max()
    assert (nearest[:350] == nearest[350:]).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    width=st.sampled_from([17, 64, 300]),
    scale=st.sampled_from([1e-18, 1.0, 1e15]),
    apart=st.sampled_from([0.0, 1e-4, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    cut=st.booleans(),
)
def test_bounds_rule_out_nothing_that_is_near(
    seed: int, width: int, scale: float, apart: float, dtype: torch.dtype, cut: bool
) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(40, width)) * np.exp(-0.1 * np.arange(width)) * scale).astype(np.float32)
    points = rows[:35] + (apart * scale * rng.normal(size=(35, width)) / width**0.5).astype(np.float32)
    directions = torch.from_numpy(np.linalg.qr(rng.normal(size=(width, 16)))[0].astype(np.float32)) if cut else None
    own = heads.of_rows(torch.from_numpy(rows), directions, dtype)
    others = heads.of_points(torch.from_numpy(points), directions, dtype)
    table = multiply(own.factors, others.factors).float().numpy()
    squares = np.square(rows[:, None] - points[None]).sum(2)
    assert squares.dtype == np.float32
    least = heads.bars(own.sure(others)[:, None], squares, others.rounding)
    assert (table[:, :35] >= least).all()
    assert (table[:, 35:] < least.min(1, keepdims=True)).all()  # what fills a group


@numba.njit
def _reaching(row: np.ndarray, bar: np.float32, step: int) -> list[int]:
    found, low = [], least_ordered(row, bar)
    for start in range(0, len(row), step):
        left = reaching(row, start, low)
        while left:
            found.append(start + lowest(left))
            left &= left - np.uint64(1)
    return found


@numba.njit
def _largest(row: np.ndarray, step: int) -> int:
    return largest(row, step)


_SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf, 1.00390625, -1.00390625]


@settings(max_examples=200, deadline=None)
@given(
    row=st.lists(st.sampled_from(_SPECIAL) | st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
    other=st.sampled_from(_SPECIAL) | st.floats(width=32, allow_nan=False),
    own=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_bits_are_compared_as_their_numbers_are(row: list[float], other: float, own: bool, dtype: torch.dtype) -> None:
    numbers = torch.tensor(row + [-np.inf] * (-len(row) % heads.GROUP), dtype=torch.float32).to(dtype)
    bar = numbers[len(row) // 2].float().item() if own else np.float32(other)
    bits = numbers.view(torch.int16 if dtype == torch.bfloat16 else torch.int32).numpy()
    step = 2 * SHORTS // bits.itemsize
    np.testing.assert_array_equal(
        _reaching(bits, np.float32(bar), step), np.flatnonzero(numbers.float().numpy() >= bar)
    )
    assert numbers[_largest(bits, step)] == numbers.max()


def test_directions_are_used_where_they_help_and_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 192)) * np.exp(-0.05 * np.arange(192))).astype(np.float32)
    x = x @ np.linalg.qr(rng.normal(size=(192, 192)))[0].astype(np.float32)
    space = Euclidean(x)
    centers = x[:80].astype(np.float64) - space.shift
    fast = NearestCenter(space, centers)
    assert fast.directions is not None
    assert fast.directions.shape[1] < 192
    monkeypatch.setattr(heads, "FEW", 81)
    near = np.full(3000, -1, np.int32)
    for a, b in zip(fast(centers, near), NearestCenter(space, centers)(centers, near), strict=True):
        np.testing.assert_array_equal(a, b)


def test_heads_are_kept_for_about_as_many_centers() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 192)) * np.exp(-0.05 * np.arange(192))).astype(np.float32)
    space = Euclidean(x)

    def directions(clusters: int) -> object:
        return NearestCenter(space, x[:clusters].astype(np.float64) - space.shift).directions

    first = directions(80)
    assert directions(100) is first
    assert directions(400) is not first
    assert directions(80) is not first  # it was replaced


def test_equal_centers_give_the_first() -> None:
    x = np.random.default_rng(1).normal(size=(200, 33)).astype(np.float32)
    space = Euclidean(x)
    centers = np.repeat(x[:20].astype(np.float64), 2, 0) - space.shift
    nearest, _ = NearestCenter(space, centers)(centers, np.full(200, 39, np.int32))
    assert (nearest % 2 == 0).all()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_neither_the_guess_nor_the_memory_layout_changes_an_answer(offset: float) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(2000, 96)) + offset).astype(np.float32)
    space = Euclidean(x)
    centers = x[:90].astype(np.float64) - space.shift + rng.normal(size=(90, 96)) * 0.3
    first = NearestCenter(space, centers)(centers, np.full(2000, -1, np.int32))
    strided = Euclidean(np.asfortranarray(x))
    for other, near in ((space, rng.integers(0, 90, 2000)), (space, first[0]), (strided, first[0])):
        for a, b in zip(first, NearestCenter(other, centers)(centers, near.astype(np.int32)), strict=True):
            np.testing.assert_array_equal(a, b)
