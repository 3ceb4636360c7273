"""Rows that stay on a device, and what selections say of wrong input."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ray_al.kernels.device.kcenter import KCenterRequest
from ray_al.kernels.device.kmeanspp import BadgeRequest
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.rows import DeviceRows, kth_largest
from ray_al.kernels.device.scores import Head
from tests.kernels.devices import device, one_thread, random_head
from tests.kernels.matrices import NO_IDS

__all__ = ["device", "one_thread"]


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
    with pytest.raises(ValueError, match=r"x is nan at row 31, column 2"):
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


@pytest.mark.parametrize("count", [1, 63, 64, 1000, 30_000])
def test_kth_largest_is_the_sorted_ones(count, device):
    rng = np.random.default_rng(count)
    for values in (rng.standard_normal(count), rng.integers(0, 3, count).astype(float), np.full(count, -np.inf)):
        for k in {1, min(count, 7), count // 2 + 1, count}:
            found = float(kth_largest(torch.from_numpy(values).to(device), k))
            assert found == np.sort(values)[count - k]


def test_no_operation_changes_the_rows(device):
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32"):
        x = rng.standard_normal((400, 6)).astype(dtype)
        pool = DevicePool(x, device=device)
        head = random_head(rng, 6, 3)
        pool.top([head], "margin", 5, [NO_IDS], [0])
        pool.probs(head)
        pool.kcenter([KCenterRequest(20, NO_IDS, NO_IDS, 0)])
        pool.badge([BadgeRequest(head, 20, NO_IDS, 0)])
        pool.fit([(np.arange(50), np.arange(50) % 3)], 3)
        np.testing.assert_array_equal(pool.rows.x.cpu().numpy(), x)


def test_needs_torch_and_numpy_alone():
    code = (
        "import sys, ray_al.kernels.device.pool\n"
        "others = {'ray', 'numba', 'faiss', 'scipy', 'sklearn', 'pyarrow', 'triton'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
