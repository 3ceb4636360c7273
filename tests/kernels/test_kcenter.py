import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels import blocks, kcenter
from ray_al.kernels.coverage import RowCoverage, ShardedCoverage
from ray_al.kernels.geometry import Euclidean
from ray_al.kernels.kcenter import kcenter_greedy
from ray_al.kernels.passes import Rows
from ray_al.kernels.some_rows import SomeRows
from tests.kernels.matrices import NO_IDS, distances, matrices


def assert_greedy(x, ids, far, centers, exclude):
    """Every pick is a farthest pickable item, to float32 rounding, and `far` are the true distances."""
    table = distances(x, x)
    pickable = np.ones(len(x), bool)
    pickable[centers] = pickable[exclude] = False
    covered = list(centers)
    for pick, distance in zip(ids, far, strict=True):
        assert pickable[pick]
        nearest = table[:, covered].min(1) if covered else np.full(len(x), np.inf)
        largest = nearest[pickable].max()
        assert nearest[pick] == largest or nearest[pick] >= largest * (1 - 1e-4)
        assert distance == pytest.approx(nearest[pick], rel=1e-4, abs=1e-9)
        pickable[pick] = False
        covered.append(pick)


@settings(max_examples=80, deadline=None)
@given(matrices(), st.data())
def test_picks_are_those_of_the_plain_algorithm(x, data):
    ids = st.lists(st.integers(0, len(x) - 1), max_size=len(x)).map(lambda items: np.array(items, np.int64))
    centers, exclude = data.draw(ids), data.draw(ids)
    left = len(x) - len(np.union1d(centers, exclude))
    k = data.draw(st.sampled_from(sorted({0, min(1, left), left // 2, left})))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picks, far = kcenter_greedy(x, k, centers, exclude, seed=3)
    assert picks.shape == far.shape == (k,)
    assert_greedy(x, picks, far, centers, exclude)


def test_many_picks_over_several_passes(monkeypatch):
    monkeypatch.setattr(kcenter, "_CANDIDATES", 7)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 5)).astype(np.float32)
    picks, far = kcenter_greedy(x, 200, np.array([1, 2]), np.array([3]), seed=0)
    assert_greedy(x, picks, far, np.array([1, 2]), np.array([3]))


def test_integers_give_exactly_the_plain_picks_where_nothing_ties():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, (300, 30)).astype(np.uint8)
    picks, far = kcenter_greedy(x, 50, np.array([0]), NO_IDS, seed=0)
    table, covered = distances(x, x), [0]
    for _ in range(50):
        nearest = table[:, covered].min(1)
        best = np.flatnonzero(np.isclose(nearest, nearest.max(), rtol=1e-6))
        assert picks[len(covered) - 1] in best
        covered.append(int(picks[len(covered) - 1]))
    np.testing.assert_allclose(far, [table[covered[i], covered[:i]].min() for i in range(1, 51)], rtol=1e-5)


def test_close_points_far_from_the_origin():
    # Two tight clusters: distances within are 1e-4 of the offset, and float32 products alone would be noise.
    rng = np.random.default_rng(2)
    corner = np.where(np.arange(200) % 2, 30.0, -30.0)[:, None]
    x = (corner + 0.01 * rng.standard_normal((200, 4))).astype(np.float32)
    picks, far = kcenter_greedy(x, 100, np.array([0]), NO_IDS, seed=0)
    assert_greedy(x, picks, far, np.array([0]), NO_IDS)


def test_duplicates_are_picked_last_at_distance_zero_each_once():
    x = np.repeat(np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32), 30, 0)
    picks, far = kcenter_greedy(x, 299, np.array([0]), NO_IDS, seed=0)
    assert len(set(picks.tolist()) | {0}) == 300
    assert (far[:9] > 0).all()
    assert (far[9:] == 0).all()


def test_ties_and_the_first_pick_follow_the_seed():
    x = np.eye(50, dtype=np.float32)
    runs = {tuple(kcenter_greedy(x, 3, NO_IDS, NO_IDS, seed)[0]) for seed in range(30)}
    assert len(runs) > 25
    assert kcenter_greedy(x, 3, NO_IDS, NO_IDS, 1)[1][0] == np.inf
    np.testing.assert_array_equal(kcenter_greedy(x, 9, NO_IDS, NO_IDS, 5), kcenter_greedy(x, 9, NO_IDS, NO_IDS, 5))


def test_bad_input_names_the_value():
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match="k is 6"):
        kcenter_greedy(x, 6, NO_IDS, NO_IDS, 0)
    with pytest.raises(ValueError, match="k is -1"):
        kcenter_greedy(x, -1, NO_IDS, NO_IDS, 0)
    with pytest.raises(ValueError, match=r"k is 4.*0\.\.3"):
        kcenter_greedy(x, 4, np.array([0]), np.array([0, 1]), 0)
    with pytest.raises(ValueError, match="centers holds id 5"):
        kcenter_greedy(x, 1, np.array([5]), NO_IDS, 0)
    for value in (np.nan, np.inf):
        bad = np.zeros((5000, 2), np.float32)
        for row in (0, 4321):
            bad[row:, 1] = value
            with pytest.raises(ValueError, match=rf"x is {value} at row {row}, column 1"):
                kcenter_greedy(bad, 1, NO_IDS, NO_IDS, 0)
            bad[:] = 0
    with pytest.raises(ValueError, match="too large"):
        kcenter_greedy(np.array([[1e30], [-1e30]], np.float32), 1, NO_IDS, NO_IDS, 0)
    with pytest.raises(ValueError, match=r"\(N, d\)"):
        kcenter_greedy(np.zeros((5, 2, 2), np.float32), 1, NO_IDS, NO_IDS, 0)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2]])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_level_between_changes_no_pick(layout, parts, monkeypatch):
    monkeypatch.setattr(kcenter, "_CANDIDATES", 4)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1 << 10)
    rng = np.random.default_rng(4)
    x = (10 * rng.standard_normal((12, 4)))[rng.integers(0, 12, 3000)] + rng.standard_normal((3000, 4))
    x, centers, levels = x.astype(np.float32), np.arange(3), []
    monkeypatch.setattr(kcenter, "SomeRows", lambda x, ids: levels.append(len(ids)) or SomeRows(x, ids))
    table = np.square(distances(x, x))
    nearest, want = table[:, centers].min(1), []
    for _ in range(150):
        want.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, table[want[-1]])
    x, free = layout(x), np.arange(len(x)) >= len(centers)
    shards = [RowCoverage(Euclidean(Rows(x, (part, parts))), free, 0) for part in range(parts)]
    with ThreadPoolExecutor(parts) as threads:
        coverage = ShardedCoverage(shards, 0, threads)
        coverage.cover(centers)
        np.testing.assert_array_equal(kcenter.pick_farthest(coverage, 150, x)[0], want)
    assert set(levels) == {3000 // 8}


def test_rows_that_may_be_covered_may_be_near(monkeypatch):
    """Sizes are checked about the center of all rows alone."""
    monkeypatch.setattr(kcenter, "_CANDIDATES", 4)
    x = np.zeros((8192, 2), np.float32)
    x[:1000, 0], x[1000:1025, 0] = 5.5e18, -5.5e18
    x[:, 1] = np.random.default_rng(5).standard_normal(len(x)) * 1e15
    assert len(set(kcenter_greedy(x, 60, np.array([8000]), NO_IDS, 0)[0].tolist())) == 60


def test_some_rows_of_strided_memory_are_read_without_the_others():
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32))
    ids = np.arange(0, 20_000, 400)
    rows = SomeRows(x, ids)
    rows.floats(0, rows.count)  # room to work in is kept
    tracemalloc.start()
    found = rows.floats(0, rows.count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.numpy(), x[ids])
    assert peak < x.nbytes / 20
