"""k-means by torch: against the compiled kernel, with duplicates and empty clusters, and the same bits again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from ray_al.kernels.device import kmeans as module
from ray_al.kernels.device.kmeans import kmeans
from ray_al.kernels.kmeans import kmeans as compiled
from tests.kernels.devices import DEVICES


def inertia(x: np.ndarray, assignment: np.ndarray) -> float:
    means = [x[assignment == c].astype(np.float64).mean(0) for c in range(assignment.max() + 1)]
    return float(((x - np.stack(means)[assignment]) ** 2).sum())


@pytest.mark.parametrize("where", DEVICES)
@settings(max_examples=30, deadline=None)
@given(count=some.integers(1, 50), seed=some.integers(0, 10**6), distinct=some.integers(1, 50))
def test_no_cluster_is_empty_and_centers_are_means(where, count, seed, distinct):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((distinct, 3)).astype(np.float32)[rng.integers(0, distinct, count)]
    clusters = int(rng.integers(1, count + 1))
    found, centers = (part.cpu().numpy() for part in kmeans(torch.from_numpy(rows).to(where), clusters, seed, 30))
    assert np.bincount(found, minlength=clusters).min() > 0
    means = np.stack([rows[found == c].mean(0) for c in range(clusters)])
    np.testing.assert_allclose(centers, means, atol=1e-5)


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("step", [1, 40, 10**6])
def test_it_is_as_good_as_the_compiled_kernel(where, step, monkeypatch):
    rng = np.random.default_rng(0)
    centers = 20 * rng.standard_normal((8, 5))  # far apart: the best of a few seeds is the optimum
    x = (centers[rng.integers(0, 8, 300)] + rng.standard_normal((300, 5))).astype(np.float32)
    monkeypatch.setattr(module, "_BYTES", 4 * 8 * step)
    ours = min(inertia(x, kmeans(torch.from_numpy(x).to(where), 8, seed, 50)[0].cpu().numpy()) for seed in range(10))
    theirs = min(inertia(x, compiled(x, 8, seed, 50, 0)[0]) for seed in range(10))
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("where", DEVICES)
def test_equal_seeds_give_equal_bits_and_others_do_not(where):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)).to(where)
    first, again, other = kmeans(x, 9, 1), kmeans(x, 9, 1), kmeans(x, 9, 2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("clusters", [0, 5])
def test_clusters_that_cannot_be_are_refused(clusters):
    with pytest.raises(ValueError, match=rf"clusters is {clusters}, but it must lie in 1\.\.4"):
        kmeans(torch.zeros(4, 2), clusters, 0)


def test_rows_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        kmeans(torch.tensor([[1.0], [float("nan")]]), 1, 0)
