"""Rows resident on a device against naive float64, and against the kernels on CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from ray_al.kernels.device import coverage as device_coverage
from ray_al.kernels.device import kcenter as device_kcenter
from ray_al.kernels.device.coverage import priorities
from ray_al.kernels.device.kcenter import KCenterRequest
from ray_al.kernels.device.kmeanspp import BadgeRequest
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.rows import DeviceRows
from ray_al.kernels.device.scores import SCORES, Head, split
from ray_al.kernels.kcenter import kcenter_greedy
from ray_al.kernels.kmeanspp import badge
from ray_al.kernels.top_scores import linear_probs, linear_uncertainty, top_k
from tests.kernels.matrices import NO_IDS, distances, matrices
from tests.kernels.test_kcenter import assert_greedy

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def id_lists(count):
    return st.lists(st.integers(0, count - 1), max_size=count).map(lambda items: np.array(items, np.int64))


def random_head(rng, d, classes, members=None):
    shape = (classes, d) if members is None else (members, classes, d)
    return Head(rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape[:-1]).astype(np.float32))


def exact_probs(x, weights, bias):
    return softmax(x.astype(np.float64) @ weights.T.astype(np.float64) + bias, axis=1)


def exact_entropy(probs):
    return -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1)


def exact_scores(x, head, score):
    if score == "bald":
        members = np.stack([exact_probs(x, w, b) for w, b in zip(*head, strict=True)])
        return exact_entropy(members.mean(0)) - exact_entropy(members).mean(0)
    ordered = np.sort(np.concatenate([exact_probs(x, *head), np.zeros((len(x), 1))], 1), 1)[:, ::-1]
    if score == "entropy":
        return exact_entropy(ordered)
    return 1 - ordered[:, 0] + (ordered[:, 1] if score == "margin" else 0)


# Rows


def test_rows_are_kept_as_they_are_from_any_part(tmp_path, device):
    x = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for matrix, kind in ((mapped, torch.float16), (x.astype(np.float32), torch.float32)):
        rows = DeviceRows(matrix, 20, 120, device)
        assert rows.x.dtype == kind
        np.testing.assert_array_equal(rows.x.cpu().numpy(), matrix[20:120])
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(DeviceRows(pixels, device=device).x.cpu().numpy(), pixels)


def test_large_uploads_go_in_parts(monkeypatch, device):
    monkeypatch.setattr("ray_al.kernels.device.rows._STAGE_BYTES", 7 * 4 * 3)
    x = np.random.default_rng(0).standard_normal((301, 7)).astype(np.float32)
    np.testing.assert_array_equal(DeviceRows(x, 1, 300, device).x.cpu().numpy(), x[1:300])


def test_bad_matrices_name_the_value():
    x = np.zeros((50, 3), np.float32)
    x[41, 2] = np.nan
    with pytest.raises(ValueError, match=r"x is nan at row 31, column \[2\]"):
        DevicePool(x, 10)
    with pytest.raises(ValueError, match=r"\(N, d\)"):
        DevicePool(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="float64"):
        DevicePool(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"rows 2\.\.9 are no part of a matrix of 3"):
        DevicePool(np.zeros((3, 2), np.float32), 2, 9)
    with pytest.raises(ValueError, match="unknown backend 'jax'; known: torch, triton"):
        DevicePool(np.zeros((3, 2), np.float32), backend="jax")
    large = DevicePool(np.array([[1e30], [-1e30]], np.float32))
    with pytest.raises(ValueError, match="too large for squared distances"):
        large.kcenter([KCenterRequest(1, NO_IDS, NO_IDS, 0)])
    with pytest.raises(ValueError, match="logits may reach 1e"):
        large.probs(Head(np.full((2, 1), 1e10, np.float32), np.zeros(2, np.float32)))


# Scores


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 6), st.sampled_from(SCORES), st.data())
def test_scores_are_those_of_float64(x, classes, score, data):
    rng = np.random.default_rng(0)
    count, d = x.shape
    members = 3 if score == "bald" else None
    heads = [random_head(rng, d, classes, members) for _ in range(3)]
    heads = [Head(h.weights / np.abs(x).max(initial=1), h.bias) for h in heads]
    excludes = [data.draw(id_lists(count)) for _ in heads]
    ks = [count - len(np.unique(ids)) for ids in excludes]
    for device in DEVICES:
        found = DevicePool(x, device=device).top(heads, score, ks, excludes, [1, 2, 3])
        for head, (ids, values), exclude, k in zip(heads, found, excludes, ks, strict=True):
            assert sorted(ids.tolist()) == sorted(set(range(count)) - set(exclude.tolist()))
            assert ids.shape == values.shape == (k,)
            assert (np.diff(values) <= 0).all()
            np.testing.assert_allclose(values, exact_scores(x, head, score)[ids], atol=3e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("score", [score for score in SCORES if score != "bald"])
def test_top_is_the_cpu_kernels(dtype, score, device):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5000, 40)).astype(dtype)
    head = random_head(rng, 40, 7)
    exclude = np.arange(100, 400)
    ((ids, values),) = DevicePool(x, device=device).top([head], score, 200, [exclude], [4])
    expected, of_expected = top_k(linear_uncertainty(x, *head, score), 200, exclude, 4)
    np.testing.assert_allclose(values, of_expected, atol=2e-6)
    assert len(np.intersect1d(ids, expected)) >= 198  # the last two may differ by rounding
    np.testing.assert_allclose(
        linear_uncertainty(x[ids], *head, score), values, atol=2e-6
    )  # an id belongs to its value


def test_ties_are_broken_as_on_the_cpu(device):
    x = np.zeros((500, 3), np.float32)
    x[::2] = 1
    head = Head(np.array([[1.0, 0, 0], [0, 0, 0]], np.float32), np.zeros(2, np.float32))
    pool = DevicePool(x, device=device)
    for seed in range(5):
        ((ids, _),) = pool.top([head], "entropy", 300, [np.arange(7)], [seed])
        expected, _ = top_k(linear_uncertainty(x, *head, "entropy"), 300, np.arange(7), seed)
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("score", SCORES)
def test_a_head_gets_the_same_bits_whatever_it_is_fused_with(score, device):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3000, 30)).astype(np.float16)
    pool = DevicePool(x, device=device)
    members = 2 if score == "bald" else None
    heads = [random_head(rng, 30, classes, members) for classes in (10, 10, 3, 10, 100, 10, 3, 10)]
    excludes = [np.arange(i, 50) for i in range(len(heads))]
    alone = [pool.top([h], score, 20, [e], [i])[0] for i, (h, e) in enumerate(zip(heads, excludes, strict=True))]
    for order in ([*range(8)], [7, 6, 5, 4, 3, 2, 1, 0], [3, 1, 1], [4, 0]):
        got = pool.top([heads[i] for i in order], score, 20, [excludes[i] for i in order], order)
        for i, (ids, values) in zip(order, got, strict=True):
            np.testing.assert_array_equal(ids, alone[i][0])
            np.testing.assert_array_equal(values, alone[i][1])


def test_probs(device):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 12)).astype(np.float16)
    head = random_head(rng, 12, 5)
    pool = DevicePool(x, 100, device=device)
    expected = exact_probs(x, *head)[100:]
    ids = np.array([5, 0, 299, 5])
    np.testing.assert_allclose(pool.probs(head), expected, atol=1e-5)
    np.testing.assert_allclose(pool.probs(head, ids), expected[ids], atol=1e-5)
    np.testing.assert_allclose(pool.probs(head, slice(10, 20)), expected[10:20], atol=1e-5)
    np.testing.assert_allclose(pool.probs(head), linear_probs(x, *head)[100:], atol=1e-5)
    assert pool.probs(head, NO_IDS).shape == (0, 5)


def test_weights_in_two_halves_have_float32s_digits():
    for scale in (1e-25, 1.0, 1e20):
        weights = torch.randn((4, 10, 64), generator=torch.Generator().manual_seed(0)) * scale
        high, low, inverse = split(weights)
        back = (high.double() + low.double()) * inverse.double()[:, None, None]
        assert float((back - weights).abs().max()) <= 2**-22 * float(weights.abs().max())
    high, low, inverse = split(torch.zeros(1, 2, 3))
    assert not high.any()
    assert not low.any()
    assert torch.isfinite(inverse).all()


def test_bad_scores_name_the_value():
    pool = DevicePool(np.zeros((5, 2), np.float32))
    head = Head(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="unknown score 'variance'; known: entropy"):
        pool.top([head], "variance", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match=r"k is 5.*0\.\.4"):
        pool.top([head], "entropy", 5, [np.array([1, 1])], [0])
    with pytest.raises(ValueError, match="exclude holds id 5"):
        pool.top([head], "entropy", 1, [np.array([5])], [0])
    with pytest.raises(ValueError, match="weights holds nan"):
        pool.top([Head(np.full((3, 2), np.nan, np.float32), head.bias)], "entropy", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match="do not fit"):
        pool.top([Head(np.zeros((3, 4), np.float32), head.bias)], "entropy", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match=r"\(S, C, d\)"):
        pool.top([head], "bald", 1, [NO_IDS], [0])
    with pytest.raises(ValueError, match="1 heads, 1 k, 2 excludes"):
        pool.top([head], "entropy", 1, [NO_IDS, NO_IDS], [0])
    ((ids, values),) = pool.top([head], "entropy", 0, [NO_IDS], [0])
    assert ids.shape == values.shape == (0,)


# k-center


@settings(max_examples=80, deadline=None)
@given(matrices(), st.data())
def test_kcenter_picks_are_those_of_the_plain_algorithm(x, data):
    requests = []
    for seed in range(2):
        centers, exclude = data.draw(id_lists(len(x))), data.draw(id_lists(len(x)))
        left = len(x) - len(np.union1d(centers, exclude))
        k = data.draw(st.sampled_from(sorted({0, min(1, left), left // 2, left})))
        requests.append(KCenterRequest(k, centers, exclude, seed))
    for device in DEVICES:
        for request, (ids, far) in zip(requests, DevicePool(x, device=device).kcenter(requests), strict=True):
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


# BADGE


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
    for device in DEVICES:
        pool = DevicePool(x, device=device)
        ((ids, far),) = pool.badge([BadgeRequest(head, k, exclude, 0, first)])
        assert len(set(ids.tolist())) == k
        assert not set(ids.tolist()) & set(exclude.tolist())
        full = gradients(x, head)
        scale = np.square(full).sum(1).max(initial=0)
        for place in range(1, k):
            true = distances(full[ids[place : place + 1]], full[ids[:place]]).min() ** 2
            assert far[place] == pytest.approx(true, rel=1e-3, abs=1e-6 * scale)


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


def test_bad_selections_name_the_value():
    pool = DevicePool(np.zeros((5, 2), np.float32))
    head = Head(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="k is 6"):
        pool.kcenter([KCenterRequest(6, NO_IDS, NO_IDS, 0)])
    with pytest.raises(ValueError, match="centers holds id 5"):
        pool.kcenter([KCenterRequest(1, np.array([5]), NO_IDS, 0)])
    with pytest.raises(ValueError, match=r"k is 4.*0\.\.3"):
        pool.badge([BadgeRequest(head, 4, np.array([0, 1]), 0)])
    with pytest.raises(ValueError, match="'norm' or 'uniform', got 'largest'"):
        pool.badge([BadgeRequest(head, 4, NO_IDS, 0, "largest")])
    ((ids, far),) = pool.badge([BadgeRequest(head, 0, NO_IDS, 0)])
    assert ids.shape == far.shape == (0,)
