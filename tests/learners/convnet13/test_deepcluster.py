"""DeepCluster: it groups what looks alike, forgets its head, and repeats itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from ray_al.core.seeds import stream
from ray_al.learners.convnet13 import deepcluster as module
from ray_al.learners.convnet13.deepcluster import Clustering, agreement, deepcluster
from ray_al.learners.convnet13.images import Images, moments_of
from ray_al.learners.convnet13.network import make_network, put_body
from tests.fakes import toy_pool

TINY = Clustering(clusters=6, width=2, epochs=2, batch=16)


def images(count: int = 40) -> Images:
    pixels = toy_pool(size=count, test_size=3, classes=3).pool.inputs("images")
    return Images(pixels, moments_of(pixels), torch.device("cpu"))


def test_equal_streams_give_equal_weights_for_all_layers_but_the_last():
    first, again = (deepcluster(images(), TINY, stream(0, "init-weights", -1)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    net = make_network(10, 2, torch.float32, np.random.default_rng(0))
    put_body(net, first)
    assert not any(name.startswith("head.") for name in first)
    other = deepcluster(images(), TINY, stream(1, "init-weights", -1))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_every_epoch_clusters_anew_and_begins_with_a_fresh_head(monkeypatch):
    heads, seeds = [], []
    reset, cluster = module.reset_head, module.clustered_rows

    def spy_reset(net, rng):
        reset(net, rng)
        heads.append(net.head.direction.detach().clone())

    def spy_clusters(found, clusters, seed):
        seeds.append(seed)
        np.testing.assert_allclose(np.linalg.norm(found.numpy(), axis=1), 1, rtol=1e-5)
        return cluster(found, clusters, seed)

    monkeypatch.setattr(module, "reset_head", spy_reset)
    monkeypatch.setattr(module, "clustered_rows", spy_clusters)
    rows = []
    deepcluster(images(), dataclasses.replace(TINY, epochs=3), stream(0, "init-weights", -1), rows.append)
    assert len({tuple(head.ravel().tolist()) for head in heads}) == 3
    assert len(set(seeds)) == 3
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_images_that_are_all_alike_still_fill_their_clusters():
    pixels = np.full((30, 8, 8), 7, np.uint8)
    held = Images(pixels, moments_of(pixels), torch.device("cpu"))
    body = deepcluster(held, TINY, stream(0, "init-weights", -1))
    assert all(torch.isfinite(value).all() for value in body.values())


def test_more_clusters_than_images_are_refused():
    with pytest.raises(ValueError, match="clusters is 6"):
        deepcluster(images(5), TINY, stream(0, "init-weights", -1))


def test_agreement_is_the_normalized_mutual_information():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 200), rng.integers(0, 4, 200)
    assert agreement(a, b) == pytest.approx(normalized_mutual_info_score(a, b, average_method="geometric"))
    assert agreement(a, (a + 2) % 5) == pytest.approx(1)
    assert agreement(a, np.zeros(200, np.int64)) == 0
