"""Images on the device: border, standardization, shifts and flips against a picture moved pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_al.learners.convnet13.images import Images, Moments, draw_moves, moments_of

CPU = torch.device("cpu")
PLAIN = Moments(np.zeros(1, np.float32), np.ones(1, np.float32))


def pictures(count: int = 4, side: int = 32, channels: int | None = None, seed: int = 0) -> np.ndarray:
    shape = (count, side, side) if channels is None else (count, side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("move", [(0, 0, 0), (4, -3, 0), (-4, 2, 1), (1, 0, 1), (0, 4, 1)])
def test_moves_are_those_of_a_padded_picture(move):
    given = pictures(channels=3)
    down, across, mirrored = move
    padded = np.pad(given[2], ((4, 4), (4, 4), (0, 0)), mode="reflect")
    expected = padded[4 - down : 36 - down, 4 - across : 36 - across]
    expected = expected[:, ::-1] if mirrored else expected
    held = Images(given, Moments(np.zeros(3, np.float32), np.ones(3, np.float32)), CPU)
    found = held.moved(torch.tensor([2]), torch.tensor(move)[:, None])
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), expected)


def test_each_picture_moves_by_its_own():
    held = Images(pictures(), PLAIN, CPU)
    moves = torch.tensor([[0, 2, -4], [1, -1, 4], [1, 0, 1]])
    together = held.moved(torch.tensor([3, 0, 3]), moves)
    for place, row in enumerate((3, 0, 3)):
        alone = held.moved(torch.tensor([row]), moves[:, place : place + 1])
        assert torch.equal(together[place], alone[0])


def test_small_gray_pictures_get_a_black_border_and_three_channels():
    given = pictures(side=28)
    held = Images(given, Moments(np.array([10.0], np.float32), np.array([4.0], np.float32)), CPU)
    found = held.plain(slice(0, 4)).numpy()
    assert found.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    np.testing.assert_allclose(found[:, 0, 2:30, 2:30], (given.astype(np.float32) - 10) / 4)
    assert (found[:, :, :2] == -2.5).all()
    assert (found[:, :, :, 30:] == -2.5).all()


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_moments_are_numpys(channels):
    given = pictures(count=9, side=8, channels=channels)
    found = moments_of(given)
    floats = given.reshape(-1, channels or 1).astype(np.float64)
    np.testing.assert_allclose(found.mean, floats.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, floats.std(0), rtol=1e-6)


def test_known_datasets_have_their_known_moments(real_data):
    with np.load(real_data / "cifar10.npz", allow_pickle=False) as file:
        images = file[next(name for name in file.files if file[name].ndim == 4 and len(file[name]) >= 10_000)]
    found = moments_of(images)
    np.testing.assert_allclose(found.mean / 255, (0.4914, 0.4822, 0.4465), atol=0.003)
    np.testing.assert_allclose(found.deviation / 255, (0.2470, 0.2435, 0.2616), atol=0.003)


def test_moves_are_uniform_in_their_range():
    moves = draw_moves(9000, np.random.default_rng(0))
    for axis in (0, 1):
        values, counts = np.unique(moves[axis], return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert abs(counts - 1000).max() < 150
    assert sorted(set(moves[2])) == [0, 1]
    assert abs(moves[2].mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    "images", [np.zeros((2, 33, 32), np.uint8), np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8, 4), np.uint8)]
)
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match="at most 32 pixels a side, got"):
        Images(images, PLAIN, CPU)
