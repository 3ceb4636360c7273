"""BADGE on resident rows against distances of full gradients, and against the kernel on CPU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.device.kmeanspp import BadgeRequest
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.scores import Head
from ray_al.kernels.kmeanspp import badge
from ray_al.kernels.top_scores import linear_probs
from tests.kernels.devices import DEVICES, device, exact_probs, id_lists, one_thread, random_head
from tests.kernels.matrices import NO_IDS, distances, matrices

__all__ = ["device", "one_thread"]


def gradients(x, head):
    probs = exact_probs(x, *head)
    probs[np.arange(len(x)), probs.argmax(1)] -= 1
    return (probs[:, :, None] * x.astype(np.float64)[:, None]).reshape(len(x), -1)


@settings(max_examples=40, deadline=None)
@given(matrices(), st.integers(2, 4), st.sampled_from(["norm", "uniform"]), st.data())
def test_badge_distances_are_true(x, classes, first, data):
    head = random_head(np.random.default_rng(0), x.shape[1], classes)
    head = Head(head.weights / max(1, np.abs(x).max()), head.bias)
    exclude = data.draw(id_lists(len(x)))
    k = len(x) - len(np.unique(exclude))
    for where in DEVICES:
        pool = DevicePool(x, device=where)
        ((ids, far),) = pool.badge([BadgeRequest(head, k, exclude, 0, first)])
        assert len(set(ids.tolist())) == k
        assert not set(ids.tolist()) & set(exclude.tolist())
        full = gradients(x, head)
        scale = np.square(full).sum(1).max(initial=0)
        # Probabilities are float32: they move a gradient by up to this, whatever its length.
        moved = 1e-6 * np.sqrt(np.square(x.astype(np.float64)).sum(1).max())
        for place in range(1, k):
            true = distances(full[ids[place : place + 1]], full[ids[:place]]).min() ** 2
            unsure = 2 * np.sqrt(true) * moved + moved**2
            assert far[place] == pytest.approx(true, rel=1e-3, abs=1e-5 * scale + unsure)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("first", ["norm", "uniform"])
def test_badge_is_the_cpu_kernels(dtype, first, device):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6000, 24)).astype(dtype)
    head = random_head(rng, 24, 6)
    request = BadgeRequest(head, 120, np.arange(500), 7, first)
    ids, far = badge(x, linear_probs(x, *head), request.k, request.exclude, request.seed, first=first)
    pool = DevicePool(x, device=device)
    other = BadgeRequest(random_head(rng, 24, 3), 50, NO_IDS, 3)
    found = pool.badge([other, request])
    np.testing.assert_array_equal(found[1][0], ids)
    np.testing.assert_allclose(found[1][1], far, rtol=1e-4)
    np.testing.assert_array_equal(pool.badge([other])[0][0], found[0][0])


def test_badge_makes_probabilities_again_where_they_do_not_fit(device):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1000, 8)).astype(np.float32)
    request = BadgeRequest(random_head(rng, 8, 5), 60, np.arange(10), 1)
    found = []
    for keep in (1 << 30, 0):
        pool = DevicePool(x, device=device, keep=keep)
        pool.rows.chunk = 300
        found.append(pool.badge([request])[0])
    np.testing.assert_array_equal(found[0], found[1])


def test_badge_picks_duplicates_last_and_uniformly(device):
    rng = np.random.default_rng(3)
    x = np.repeat(rng.standard_normal((4, 5)).astype(np.float32), 25, 0)
    head = random_head(rng, 5, 3)
    ((ids, far),) = DevicePool(x, device=device).badge([BadgeRequest(head, 100, NO_IDS, 0)])
    assert sorted(ids.tolist()) == list(range(100))
    assert (far[1:4] > 0).all()
    assert (far[4:] == 0).all()
