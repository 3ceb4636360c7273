"""Greedy k-center on resident rows against the plain algorithm, and against the kernel on CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.kernels.device import coverage as device_coverage
from ray_al.kernels.device import kcenter as device_kcenter
from ray_al.kernels.device.coverage import priorities
from ray_al.kernels.device.kcenter import KCenterRequest
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.rows import DeviceRows
from ray_al.kernels.kcenter import kcenter_greedy
from tests.kernels.devices import DEVICES, device, id_lists, one_thread
from tests.kernels.matrices import NO_IDS, matrices
from tests.kernels.test_kcenter import assert_greedy

__all__ = ["device", "one_thread"]


@settings(max_examples=80, deadline=None)
@given(matrices(), st.data())
def test_kcenter_picks_are_those_of_the_plain_algorithm(x, data):
    requests = []
    for seed in range(2):
        centers, exclude = data.draw(id_lists(len(x))), data.draw(id_lists(len(x)))
        left = len(x) - len(np.union1d(centers, exclude))
        k = data.draw(st.sampled_from(sorted({0, min(1, left), left // 2, left})))
        requests.append(KCenterRequest(k, centers, exclude, seed))
    for where in DEVICES:
        for request, (ids, far) in zip(requests, DevicePool(x, device=where).kcenter(requests), strict=True):
            assert ids.shape == far.shape == (request.k,)
            assert_greedy(x, ids, far, request.centers, request.exclude)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_kcenter_is_the_cpu_kernels_over_several_passes(dtype, monkeypatch, device):
    monkeypatch.setattr(device_kcenter, "CANDIDATES", (8, 32))
    monkeypatch.setattr(device_kcenter, "_STEPS", 3)
    monkeypatch.setattr(device_coverage, "POINTS", 16)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 20)).astype(dtype)
    pool = DevicePool(x, device=device)
    pool.rows.chunk = 300
    requests = [
        KCenterRequest(250, np.arange(60), np.arange(50, 90), 0),
        KCenterRequest(90, NO_IDS, NO_IDS, 1),
        KCenterRequest(739, np.arange(60), NO_IDS, 2),
        KCenterRequest(0, NO_IDS, NO_IDS, 2),
    ]
    together = pool.kcenter(requests)
    for request, (ids, far) in zip(requests, together, strict=True):
        expected, of_expected = kcenter_greedy(x, *request)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(far, of_expected, rtol=1e-5)
        ((alone, far_alone),) = pool.kcenter([request])
        np.testing.assert_array_equal(ids, alone)
        np.testing.assert_array_equal(far, far_alone)
    some = pool.kcenter([requests[2], requests[0], requests[0]])
    for at, expected in ((0, together[2]), (1, together[0]), (2, together[0])):
        np.testing.assert_array_equal(some[at][0], expected[0])


def test_kcenter_tables_of_pairs_stay_within_their_room(monkeypatch, device):
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    requests = [KCenterRequest(20, np.array([i]), NO_IDS, i) for i in range(5)]
    together = DevicePool(x, device=device).kcenter(requests)
    monkeypatch.setattr(device_kcenter, "_TABLES", 2 * device_kcenter.CANDIDATES[0] ** 2)
    for one, other in zip(together, DevicePool(x, device=device).kcenter(requests), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_kcenter_duplicates_are_picked_last_each_once(dtype, device):
    x = np.repeat(np.random.default_rng(0).standard_normal((10, 3)).astype(dtype), 30, 0)
    ((ids, far),) = DevicePool(x, device=device).kcenter([KCenterRequest(299, np.array([0]), NO_IDS, 0)])
    assert sorted({*ids.tolist(), 0}) == list(range(300))
    assert (far[:9] > 0).all()
    assert (far[9:] == 0).all()


def test_kcenter_close_points_far_from_the_origin(device):
    # Two tight clusters: distances within are 1e-4 of the offset, and float32 products alone would be noise.
    rng = np.random.default_rng(2)
    corner = np.where(np.arange(200) % 2, 30.0, -30.0)[:, None]
    x = (corner + 0.01 * rng.standard_normal((200, 4))).astype(np.float32)
    ((ids, far),) = DevicePool(x, device=device).kcenter([KCenterRequest(100, np.array([0]), NO_IDS, 0)])
    assert_greedy(x, ids, far, np.array([0]), NO_IDS)


def test_kcenter_ties_and_the_first_pick_follow_the_seed(device):
    x = np.eye(50, dtype=np.float16)
    pool = DevicePool(x, device=device)
    found = pool.kcenter([KCenterRequest(5, NO_IDS, NO_IDS, seed) for seed in range(20)])
    assert len({tuple(ids) for ids, _ in found}) > 15
    for seed, (ids, far) in enumerate(found):
        # Later ones tie here; on the CPU the shift of the rows makes them differ by rounding.
        assert ids[0] == kcenter_greedy(x, 1, NO_IDS, NO_IDS, seed)[0][0]
        np.testing.assert_allclose(far, [np.inf, *[2**0.5] * 4])


def test_half_frames_only_where_the_rows_lie_about_the_origin():
    x = np.random.default_rng(0).standard_normal((100, 5))
    assert DeviceRows(x.astype(np.float16)).frame.half
    assert not DeviceRows((x + 50).astype(np.float16)).frame.half
    assert not DeviceRows(
        (x.clip(-2, 2) * 2e4).astype(np.float16)
    ).frame.half  # twice these numbers leave float16's range
    assert not DeviceRows(x.astype(np.float32)).frame.half


def test_priorities_are_distinct_and_wrap_like_unsigned_numbers():
    ids = torch.arange(1000)
    salt = 2**63 - 12345
    z = (np.arange(1000, dtype=np.uint64) + np.uint64(2 * salt + 1 & 2**64 - 1)).astype(object)
    for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z = np.array([((v ^ (v >> by)) * factor) % 2**64 for v in z.tolist()], object)
    found = priorities(ids, salt).numpy()
    np.testing.assert_array_equal(found.view(np.uint64), z.astype(np.uint64))
    assert len(set(found.tolist())) == 1000
