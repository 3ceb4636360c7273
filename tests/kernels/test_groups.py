"""k-means and typicality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from ray_al.kernels.halves import loadable
from ray_al.kernels.kmeans import add_rows, by_cluster, kmeans
from ray_al.kernels.typicality import typicality
from tests.kernels.matrices import distances, matrices


@settings(max_examples=60, deadline=None)
@given(matrices(), st.data())
def test_assignment_is_nearest_and_inertia_true(x, data):
    clusters = data.draw(st.sampled_from(sorted({1, (len(x) + 1) // 2, len(x)})))
    assignment, centers, inertia = kmeans(x, clusters, seed=0)
    assert assignment.dtype == np.int32
    assert centers.shape == (clusters, x.shape[1])
    assert centers.dtype == np.float32
    table = distances(x, centers)
    slack = 1e-5 * (1 + np.abs(x.astype(float)).max())
    own = table[np.arange(len(x)), assignment]
    np.testing.assert_allclose(own, table.min(1), atol=2e-3 * table.max() + slack)
    assert inertia == pytest.approx(np.square(own).sum(), rel=1e-2, abs=len(x) * slack**2)
    assert len(np.unique(assignment)) == clusters
    for a, b in zip(kmeans(x, clusters, seed=0), (assignment, centers, inertia), strict=True):
        np.testing.assert_array_equal(a, b)


def test_separated_clusters_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 4000)
    x = (20 * rng.standard_normal((8, 16))[truth] + rng.standard_normal((4000, 16)) + 100).astype(np.float32)
    assignment, centers, inertia = kmeans(x, 8, seed=1)
    assert len(np.unique(np.stack([truth, assignment]), axis=1).T) == 8
    means = np.stack([x[assignment == c].mean(0, dtype=np.float64) for c in range(8)])
    np.testing.assert_allclose(centers, means, atol=1e-3)
    assert inertia == pytest.approx(np.square(x - means[assignment]).sum(), rel=1e-4)


def test_inertia_is_on_par_with_scikit_learn():
    x = np.random.default_rng(0).standard_normal((3000, 10)).astype(np.float32)
    ours = np.mean([kmeans(x, 40, seed)[2] for seed in range(3)])
    theirs = np.mean([KMeans(40, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(3)])
    assert ours < 1.02 * theirs


def test_the_default_ends_close_to_where_many_more_rounds_lead():
    x = np.random.default_rng(0).standard_normal((3000, 10)).astype(np.float32)
    for seed in range(3):
        soon, late = kmeans(x, 40, seed)[2], kmeans(x, 40, seed, max_iter=300, tol=0, momentum=0)[2]
        assert soon < 1.03 * late


@settings(max_examples=60, deadline=None)
@given(
    clusters=st.integers(1, 9),
    count=st.integers(1, 40),
    width=st.sampled_from([3, 16, 21]),
    kind=st.sampled_from([np.float32, np.float16]),
    seed=st.integers(0, 99),
)
def test_sums_of_moved_rows_are_those_of_all_rows(clusters, count, width, kind, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)).astype(kind)
    old, new = (rng.integers(low, clusters, count).astype(np.int32) for low in (-1, 0))
    sums = np.zeros((clusters, width))
    for row, cluster in zip(rows, old, strict=True):
        if cluster >= 0:
            sums[cluster] += row
    changed = np.flatnonzero(old != new)
    ids, cluster, sign = by_cluster(changed, old, new, clusters)
    assert (np.diff(cluster) >= 0).all()
    assert len(ids) == len(changed) + (old[changed] >= 0).sum()
    at = rng.permutation(count)
    add_rows(loadable(rows[np.argsort(at)]), at[ids], cluster, sign, sums)
    wanted = np.stack([rows[new == cluster].sum(0, dtype=float) for cluster in range(clusters)])
    np.testing.assert_allclose(sums, wanted, atol=1e-12)


def test_rows_put_in_order_in_many_parts_give_the_same_clusters(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float16)
    whole = kmeans(x, 30, seed=0)
    monkeypatch.setattr("ray_al.kernels.kmeans._CHUNK", 1)  # three of them
    parts = kmeans(x, 30, seed=0)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)


def test_no_cluster_stays_empty():
    x = np.concatenate([np.zeros((100, 2)), np.arange(10)[:, None] * [1.0, 0]]).astype(np.float32)
    assignment, _, inertia = kmeans(x, 10, seed=0)
    assert len(np.unique(assignment)) == 10
    assert inertia == pytest.approx(0, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(matrices(max_rows=60), st.integers(1, 25), st.integers(1, 3), st.integers(0, 99))
def test_typicality_is_the_inverse_mean_distance(x, neighbors, parts, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    groups = np.array_split(order, parts)
    values = typicality(x, groups, neighbors)
    assert len(values) == parts
    for group, value in zip(groups, values, strict=True):
        assert value.dtype == np.float32
        assert value.shape == group.shape
        count = min(neighbors, len(group) - 1)
        if count < 1:
            assert (value == 0).all()
            continue
        table = distances(x[group], x[group])
        np.fill_diagonal(table, np.inf)
        mean = np.sort(table, 1)[:, :count].mean(1)
        assert np.isfinite(value).all()
        assert (value[mean == 0] == np.finfo(np.float32).max).all()
        np.testing.assert_allclose(value[mean > 0], 1 / mean[mean > 0], rtol=1e-3)


def test_typicality_of_a_group_longer_than_a_block():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 3)).astype(np.float32)
    x[4000:] = x[:1000]  # duplicates in other blocks
    (value,) = typicality(x, [np.arange(5000)], 3)
    rows = np.arange(0, 5000, 97)
    table = distances(x[rows], x)
    table[np.arange(len(rows)), rows] = np.inf
    np.testing.assert_allclose(value[rows], 1 / np.sort(table, 1)[:, :3].mean(1), rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 3, 20, 21, 64, 65, 300, 1023, 1024, 1025, 2500]), min_size=1, max_size=6),
    neighbors=st.sampled_from([1, 20, 70]),
    kind=st.sampled_from(["<f4", "<f2", "u1"]),
    seed=st.integers(0, 99),
)
def test_a_group_has_the_same_bits_alone_and_among_others(sizes, neighbors, kind, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(100, 30, (3000, 17)).clip(0, 255).astype(kind)
    x[1500:1600] = x[:100]
    groups = [rng.choice(3000, size, replace=False) for size in sizes]
    values = typicality(x, groups, neighbors)
    assert [len(value) for value in values] == sizes
    for group, value in zip(groups, values, strict=True):
        np.testing.assert_array_equal(value, typicality(x, [group], neighbors)[0])
        rows, count = group[:: max(1, len(group) // 5)], min(neighbors, len(group) - 1)
        if count < 1:
            continue
        table = distances(x[rows], x[group])
        table[rows[:, None] == group] = np.inf
        mean = np.sort(table, 1)[:, :count].mean(1)
        found = value[:: max(1, len(group) // 5)]
        assert (found[mean == 0] == np.finfo(np.float32).max).all()
        np.testing.assert_allclose(found[mean > 0], 1 / mean[mean > 0], rtol=1e-3)


def test_typicality_does_not_depend_on_where_rows_lie(tmp_path):
    x = np.random.default_rng(0).standard_normal((3000, 33)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    moved = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
    moved[:] = x
    groups = [np.arange(0, 3000, 7), np.arange(1500), np.arange(40)]
    for other in (np.load(tmp_path / "x.npy", mmap_mode="r"), moved, np.asfortranarray(x)):
        for a, b in zip(typicality(x, groups, 9), typicality(other, groups, 9), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [10, 1500])
def test_values_that_have_no_distances_are_named(size):
    x = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)
    groups = [np.arange(1900, 1910), np.arange(size), np.arange(1950, 1960)]
    x[7, 3] = np.nan
    with pytest.raises(ValueError, match="x is nan in row 7"):
        typicality(x, groups, 3)
    x[7, 3] = 3e38
    with pytest.raises(ValueError, match="too large for squared distances"):
        typicality(x, groups, 3)


def test_bad_input_names_the_value():
    x = np.zeros((5, 2), np.float32)
    for clusters in (0, 6):
        with pytest.raises(ValueError, match=f"clusters is {clusters}"):
            kmeans(x, clusters, 0)
    with pytest.raises(ValueError, match="neighbors is 0"):
        typicality(x, [np.arange(3)], 0)
    with pytest.raises(ValueError, match="groups holds id 7"):
        typicality(x, [np.array([7])], 1)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="x is nan at row 3"):
        kmeans(x, 2, 0)
    with pytest.raises(ValueError, match="x is nan in row 3"):
        typicality(x, [np.arange(2), np.arange(2, 5)], 1)
