"""The optimizer, its learning rates, and the steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ray_al.learners.convnet13.images import Images, draw_moves, moments_of
from ray_al.learners.convnet13.network import make_network
from ray_al.learners.convnet13.optimizer import Sgd, cosine
from ray_al.learners.convnet13.steps import Batches, Stepper

CPU = torch.device("cpu")


def network(seed: int = 0):
    return make_network(3, 2, torch.float32, np.random.default_rng(seed))


def test_its_optimizer_is_torchs_sgd_with_nesterov():
    ours, reference = network(), network()
    optimizer = Sgd(ours, ours.head)
    torchs = torch.optim.SGD(reference.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=2e-4)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32))
    targets = torch.tensor([0, 1, 2, 0])
    for _ in range(4):
        optimizer.gradient.zero_()
        functional.cross_entropy(ours.eval()(x), targets).backward()
        optimizer.step(torch.tensor(0.2))
        torchs.zero_grad()
        functional.cross_entropy(reference.eval()(x), targets).backward()
        torchs.step()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name], parameter, rtol=1e-4, atol=1e-6)


def test_parameters_are_views_of_one_vector_and_the_head_is_its_end():
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = Sgd(net, net.head)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert optimizer.values.numel() == sum(p.numel() for p in net.parameters())
    assert all(
        p.untyped_storage().data_ptr() == optimizer.values.untyped_storage().data_ptr() for p in net.parameters()
    )
    optimizer.velocity.fill_(1)
    optimizer.forget_last()
    assert int((optimizer.velocity == 0).sum()) == sum(p.numel() for p in net.head.parameters())
    moved = optimizer.values.clone()
    moved[optimizer.velocity == 0] += 1
    optimizer.values.copy_(moved)
    torch.testing.assert_close(net.head.bias.detach(), before[-1] + 1)


def test_learning_rates_fall_in_fractional_epochs_to_zero_at_210():
    rates = cosine(0.2, 200, 319)
    assert rates.shape == (200, 319)
    assert rates[0, 0] == 0.2
    for epoch, step in ((0, 1), (100, 160), (199, 318)):
        time = epoch + step / 319
        assert rates[epoch, step] == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi * time / 210)), rel=1e-12)
    assert (np.diff(rates.ravel()) < 0).all()
    assert rates[-1, -1] > 0


def test_shorter_training_rescales_the_cosine_unless_told_not_to():
    assert cosine(0.2, 60, 5)[30, 0] == pytest.approx(0.1 * (1 + math.cos(math.pi * 30 / 63)))
    assert cosine(0.2, 60, 5, 210)[30, 0] == pytest.approx(0.1 * (1 + math.cos(math.pi * 30 / 210)))


def stepper(seed: int = 0, device: torch.device = CPU) -> Stepper:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 8, 8), dtype=np.uint8)
    net = network(seed).to(device)
    net.noise = torch.Generator(device).manual_seed(0)
    return Stepper(net, Sgd(net, net.head), Images(pixels, moments_of(pixels), device), 4, np.random.default_rng(2))


def batches(weights: np.ndarray | None = None, lr: float = 0.1) -> Batches:
    rows = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    given = np.ones(rows.shape, np.float32) if weights is None else weights
    return Batches(rows, rows % 3, given, np.full(2, lr))


def test_a_weight_of_zero_takes_an_image_out_of_the_gradient_and_one_is_plain():
    first, second = stepper(), stepper()
    weights = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], np.float32)
    other = batches(weights)
    targets = other.targets.copy()
    targets[0, 2], targets[1, 1] = (targets[0, 2] + 1) % 3, (targets[1, 1] + 1) % 3
    first.epoch(other, "here")
    second.epoch(Batches(other.rows, targets, weights, other.rates), "here")
    assert torch.equal(first.optimizer.values, second.optimizer.values)
    plain = stepper()
    plain.epoch(batches(), "here")
    assert not torch.equal(first.optimizer.values, plain.optimizer.values)


def test_the_loss_is_the_weighted_sum_over_the_batch_size():
    weights = np.array([[0.5, 1, 0, 0.25]], np.float32)
    state = stepper()
    one = batches()
    loss = state.epoch(Batches(one.rows[:1], one.targets[:1], weights, np.zeros(1)), "here")
    again = stepper()
    again.net.train()
    moves = np.random.default_rng(2)
    x = again.images.moved(torch.arange(4), torch.from_numpy(draw_moves(4, moves)))
    each = functional.cross_entropy(again.net(x), torch.from_numpy(one.targets[0]), reduction="none")
    assert loss == pytest.approx(float((each.detach() * torch.from_numpy(weights[0])).sum() / 4), rel=1e-6)


def test_a_learning_rate_of_zero_changes_running_moments_alone():
    state = stepper()
    before = state.optimizer.values.clone()
    mean = state.net.layers[0].norm.running_mean.clone()
    state.epoch(batches(lr=0.0), "here")
    assert torch.equal(state.optimizer.values, before)
    assert not torch.equal(state.net.layers[0].norm.running_mean, mean)


def test_a_loss_that_is_not_finite_says_where():
    state = stepper()
    state.optimizer.values.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="nan in SEMI epoch 3"):
        state.epoch(batches(), "SEMI epoch 3")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_recorded_steps_are_the_plain_ones():
    recorded, plain = stepper(device=torch.device("cuda")), stepper(device=torch.device("cuda"))
    plain._eager = math.inf
    losses = [[state.epoch(batches(), "here") for _ in range(5)] for state in (recorded, plain)]
    assert recorded._graph is not None
    assert plain._graph is None
    np.testing.assert_allclose(*losses, rtol=1e-3)
    torch.testing.assert_close(recorded.optimizer.values, plain.optimizer.values, rtol=1e-3, atol=1e-4)
