"""Same bits on any number of threads, and the pool itself."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ray_al.kernels import blocks
from ray_al.kernels.kcenter import kcenter_greedy
from ray_al.kernels.kmeans import kmeans
from ray_al.kernels.kmeanspp import badge
from ray_al.kernels.logistic import fit_logistic
from ray_al.kernels.neighbors import build_index, nearest, neighbors_of
from ray_al.kernels.top_scores import SCORES, linear_probs, linear_uncertainty, uncertainty
from ray_al.kernels.typicality import typicality
from tests.kernels.matrices import NO_IDS


@pytest.fixture
def restore_threads():
    yield
    blocks.set_threads(None)


def everything() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9000, 130)).astype(np.float32)
    weights, bias = rng.standard_normal((10, 130)).astype(np.float32), rng.standard_normal(10).astype(np.float32)
    probs = linear_probs(x, weights, bias)
    results = [probs]
    for score in SCORES:
        results += [uncertainty(probs, score), linear_uncertainty(x, weights, bias, score)]
    committee = np.stack([weights, weights[::-1]]), np.stack([bias, bias])
    results += [
        linear_uncertainty(x, *committee, "bald"),
        linear_probs(x, *committee),
        uncertainty(np.stack([probs] * 2), "bald"),
    ]
    results += kcenter_greedy(x, 300, np.arange(5), NO_IDS, 0)
    results += badge(x, probs, 300, NO_IDS, 0)
    assignment, centers, inertia = kmeans(x, 12, 0, max_iter=4)
    results += [assignment, centers, np.array(inertia)]
    results += typicality(x, [np.flatnonzero(assignment == cluster) for cluster in range(12)], 20)
    for n, d in ((300, 130), (20, 130), (400, 20)):
        results += fit_logistic([(x[:n, :d].copy(), probs.argmax(1)[:n])], 10)[0]
    rows = x[:3000, :20].copy()
    index = build_index(rows)
    results += [*neighbors_of(index, rows, np.arange(3000), 5)]
    results += [nearest(index, x[3000:3100, :20].copy(), np.arange(1000))]
    return results


def test_same_bits_on_one_and_two_threads(restore_threads):
    """Also with other settings of torch's own threads, and with twice the work at once."""
    blocks.set_threads(1)
    reference = everything()
    before = torch.get_num_threads()
    for threads, torch_threads in ((2, 2), (1, 2), (2, 1)):
        blocks.set_threads(threads)
        torch.set_num_threads(torch_threads)
        for one, other in zip(reference, everything(), strict=True):
            assert one.tobytes() == other.tobytes()
    torch.set_num_threads(before)
    with ThreadPoolExecutor(2) as callers:
        for results in callers.map(lambda _: everything(), range(2)):
            for one, other in zip(reference, results, strict=True):
                assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_mapped_and_shifted_memory_give_the_same_bits(tmp_path, dtype):
    x = np.random.default_rng(0).standard_normal((5000, 33)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    moved = np.empty(x.size + 1, dtype)[1:].reshape(x.shape)
    moved[:] = x
    reference = kcenter_greedy(x, 40, NO_IDS, NO_IDS, 0)
    for other in (mapped, moved, np.asfortranarray(x)):
        for a, b in zip(reference, kcenter_greedy(other, 40, NO_IDS, NO_IDS, 0), strict=True):
            assert a.tobytes() == b.tobytes()


def test_the_pool_leaves_torchs_own_threads_alone(restore_threads):
    before = torch.get_num_threads()
    for outside in (1, 4):
        torch.set_num_threads(outside)
        blocks.set_threads(3)
        for _ in range(2):
            reports = blocks.run(lambda _: torch.__config__.parallel_info(), range(30))
            counts = {line.strip() for report in reports for line in report.splitlines() if "max_threads()" in line}
            assert {count.split(" : ")[1] for count in counts} == {"1"}, counts
        assert torch.get_num_threads() == outside
    torch.set_num_threads(before)


def test_results_come_in_order_and_errors_come_through(restore_threads):
    blocks.set_threads(2)
    assert blocks.map_blocks(lambda a, b: (a, b), 10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert blocks.run(lambda _: blocks.run(lambda item: item, range(3)), range(4)) == [[0, 1, 2]] * 4  # no deadlock
    assert blocks.run(str, []) == []
    assert blocks.alone(lambda: 3) == 3


@pytest.mark.parametrize("first", [0, 1, 5])
def test_the_error_of_the_first_item_is_raised_and_no_further_item_begins(restore_threads, first):
    blocks.set_threads(2)
    late, begun = threading.Event(), []

    def work(item):
        begun.append(item)
        if item == first:
            assert late.wait(30)  # the next item's error comes before
            raise ZeroDivisionError
        if item == first + 1:
            late.set()
            raise KeyError(item)

    with pytest.raises(ZeroDivisionError):
        blocks.run(work, range(1000))
    assert sorted(begun) == list(range(first + 2))
    assert blocks.run(str, range(3)) == ["0", "1", "2"]  # the pool works on


def test_small_work_does_not_wait_for_anothers_long_item(restore_threads):
    blocks.set_threads(2)
    done = threading.Event()
    with ThreadPoolExecutor(1) as caller:
        long = caller.submit(blocks.alone, lambda: done.wait(30))
        assert blocks.run(str, range(5)) == ["0", "1", "2", "3", "4"]
        done.set()
        assert long.result()


def test_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv(blocks.THREADS_VARIABLE, "5")
    assert blocks.threads() == 5
    for value in ("0", "-1", "two"):
        monkeypatch.setenv(blocks.THREADS_VARIABLE, value)
        with pytest.raises(ValueError, match=f"got '{value}'"):
            blocks.threads()


def test_a_forked_child_makes_its_own_pool():
    code = (
        "import os; from ray_al.kernels import blocks; blocks.run(str, [1])\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if blocks.run(str, [1, 2]) == ['1', '2'] else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, env=dict(os.environ))


def test_conversion_of_every_type():
    for dtype in (np.float16, np.float32, np.float64, np.uint8, np.int32):
        x = np.arange(12).reshape(4, 3).astype(dtype)
        x.flags.writeable = False
        np.testing.assert_array_equal(blocks.float_rows(x, 1, 3).numpy(), x[1:3].astype(np.float32))
        shifted = blocks.float_rows(x, 1, 3, np.ones(3, np.float32))
        np.testing.assert_array_equal(shifted.numpy(), x[1:3].astype(np.float32) - 1)
