"""The variational auto-encoder: its loss by hand, its training, its determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits

from ray_al.core.seeds import stream
from ray_al.data.vae_space import last
from ray_al.generative.vae import UNUSED, Epoch, TrainedVae, VaeSettings, device_fault
from ray_al.generative.vae_network import ConvVae, Images, RmsProp, Training, encode, fit, loss_terms, make_vae
from ray_al.kernels import blocks

CPU = torch.device("cpu")


class Known(ConvVae):
    """An auto-encoder whose code and logits are given, so that the loss can be written down."""

    def __init__(self, mean: np.ndarray, log_variance: np.ndarray, slope: np.ndarray) -> None:
        torch.nn.Module.__init__(self)
        self.given = tuple(torch.from_numpy(a.astype(np.float32)) for a in (mean, log_variance))
        self.slope = torch.from_numpy(slope.astype(np.float32))  # (d, pixels): logits are linear in the sample

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.given

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes @ self.slope).reshape(len(codes), 1, 2, 3)


small = st.floats(-2, 2, width=32)


@settings(max_examples=40, deadline=None)
@given(
    mean=arrays(np.float64, (4, 2), elements=small),
    log_variance=arrays(np.float64, (4, 2), elements=small),
    slope=arrays(np.float64, (2, 6), elements=small),
    pixels=arrays(np.uint8, (4, 2, 3)),
    seed=st.integers(0, 99),
)
def test_loss_terms_against_the_formula(mean, log_variance, slope, pixels, seed):
    noise = np.random.default_rng(seed).normal(size=(4, 2))
    x = pixels / 255
    z = mean + np.sqrt(np.exp(log_variance)) * noise
    p = 1 / (1 + np.exp(-(z @ slope)))
    entropy = -(x.reshape(4, 6) * np.log(p) + (1 - x.reshape(4, 6)) * np.log1p(-p)).mean(1)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    images = torch.from_numpy(x[:, None].astype(np.float32))
    found = loss_terms(Known(mean, log_variance, slope), images, torch.from_numpy(noise.astype(np.float32)))
    np.testing.assert_allclose(found[0].numpy(), entropy, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found[1].numpy(), kl, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dims", [1, 3, 7])
def test_kl_weights_are_those_of_the_listing_and_of_the_bound(dims):
    mean, log_variance = np.random.default_rng(0).normal(size=(2, dims))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum()
    book = 5e-4 * (mean**2 + np.exp(log_variance) - 1 - log_variance).mean()
    assert VaeSettings(dims, "book").kl_weight(784) * kl == pytest.approx(book)
    # The bound is -(784 * mean cross-entropy) - KL; divided by the pixels, KL weighs 1/784.
    assert VaeSettings(dims, "elbo").kl_weight(784) * kl == pytest.approx(kl / 784)


def test_rmsprop_against_the_rule_in_float64():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(5, 3))
    parameter = torch.from_numpy(value.astype(np.float32))
    optimizer, square = RmsProp([parameter]), np.zeros((5, 3))
    for _ in range(7):
        gradient = rng.normal(size=(5, 3))
        square = 0.9 * square + 0.1 * gradient**2
        value = value - 1e-3 * gradient / (np.sqrt(square) + 1e-7)
        optimizer.step((torch.from_numpy(gradient.astype(np.float32)),))
    np.testing.assert_allclose(parameter.numpy(), value, atol=2e-6)


@pytest.mark.parametrize("shape", [(28, 28), (7, 5), (8, 9, 3), (1, 1)])
def test_any_size_comes_back_in_its_own_size(shape):
    net = make_vae(shape, 4, np.random.default_rng(0))
    images = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    inputs = Images(images, 255, CPU).take(torch.arange(3))
    mean, log_variance = net.encode(inputs)
    assert mean.shape == log_variance.shape == (3, 4)
    assert net.decode(mean).shape == inputs.shape == (3, shape[2] if len(shape) == 3 else 1, *shape[:2])
    np.testing.assert_allclose(inputs.numpy().transpose(0, 2, 3, 1).reshape(images.shape), images / 255, atol=1e-7)


def test_the_layout_is_the_listing_s():
    net = make_vae((28, 28), 3, np.random.default_rng(0))
    sizes = {name: tuple(value.shape) for name, value in net.named_parameters() if name.endswith("weight")}
    assert list(sizes.values()) == [
        *((32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (64, 64, 3, 3)),
        *((32, 12544), (3, 32), (3, 32)),
        *((12544, 3), (64, 32, 3, 3), (1, 32, 3, 3)),
    ]
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        else:  # Glorot uniform: bounded by its limit, and filling it
            fans = (value.shape[0] + value.shape[1]) * math.prod(value.shape[2:])
            limit = math.sqrt(6 / fans)
            assert 0.9 * limit < value.abs().max().item() <= limit * (1 + 1e-6)


def digits(count: int) -> np.ndarray:
    """Images of 8 x 8 that are made 16 x 16, 0..255."""
    images = load_digits().images[:count].repeat(2, 1).repeat(2, 2)
    return (images * 255 / 16).round().astype(np.uint8)


def trained(threads: int | None = None, **options: int) -> TrainedVae:
    images = {"pool": digits(70), "test": digits(23)}
    blocks.set_threads(threads)
    try:
        return last(fit(images, 255, VaeSettings(2, epochs=2, device="cpu", **options)), lambda epoch: None)
    finally:
        blocks.set_threads(None)


def test_equal_seeds_give_equal_bits_whatever_the_threads():
    before = torch.get_num_threads()
    state = torch.random.get_rng_state()
    one = trained()
    try:
        torch.set_num_threads(before % 3 + 1)
        np.random.seed(1)  # noqa: NPY002  what is global must not matter
        two = trained(threads=1)
        three = trained(threads=3)
    finally:
        torch.set_num_threads(before)
    other = trained(seed=1)
    for again in (two, three):
        np.testing.assert_array_equal(one.means["pool"], again.means["pool"])
        for name, value in one.weights.items():
            np.testing.assert_array_equal(value, again.weights[name])
        assert [e.loss for e in one.history] == [e.loss for e in again.history]
    assert not np.array_equal(one.means["pool"], other.means["pool"])
    assert torch.equal(state, torch.random.get_rng_state())


def test_means_do_not_depend_on_their_neighbors_and_the_weights_give_them():
    found = trained()
    np.testing.assert_array_equal(found.means["pool"][:23], found.means["test"])
    net = ConvVae(1, 16, 16, 2).to(memory_format=torch.channels_last)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in found.weights.items()})
    np.testing.assert_array_equal(encode(net, digits(70)[5:9], 255, CPU), found.means["pool"][5:9])


def test_a_pass_is_the_gradient_descent_that_it_says_it_is():
    """One batch of 5 in two shards against autograd on the whole batch, with the streams drawn by hand."""
    images, how = digits(5), VaeSettings(2, kl_mode="elbo", batch=16, seed=3)
    net, twin = (make_vae((16, 16), 2, np.random.default_rng(0)) for _ in range(2))
    epoch = Training(net, images, 255, how, CPU).epoch(1)
    order = torch.from_numpy(stream(3, "order", 1).permutation(5))
    noise = torch.from_numpy(stream(3, "noise", 1).standard_normal((5, 2), np.float32))
    entropy, kl = loss_terms(twin, Images(images, 255, CPU).take(order), noise)
    loss = entropy.mean() + kl.mean() / 256
    RmsProp(twin.parameters()).step(torch.autograd.grad(loss, list(twin.parameters())))
    assert epoch.loss == pytest.approx(loss.item(), rel=1e-6)
    assert epoch.kl == pytest.approx(kl.mean().item(), abs=1e-6)  # of values close to 0
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        # The first step of RMSprop divides a gradient by its own size: where it is nearly 0, rounding decides the sign.
        assert torch.isclose(mine, theirs, atol=1e-5).float().mean() > 0.99


def test_the_loss_falls_and_every_dimension_is_used():
    images = {"pool": digits(600), "test": digits(1)}
    told: list[Epoch] = []
    found = last(fit(images, 255, VaeSettings(3, epochs=2, device="cpu")), told.append)
    assert found.history == tuple(told)
    assert [epoch.number for epoch in told] == [1, 2]
    assert told[1].loss < told[0].loss
    assert told[1].reconstruction < math.log(2)  # the cross-entropy of saying 0.5 everywhere
    assert (found.variances > UNUSED).all()
    assert found.means["pool"].dtype == np.float32


def test_a_weaker_penalty_spreads_the_codes():
    book, elbo = (
        last(fit({"pool": digits(300)}, 255, VaeSettings(3, kl_mode=mode, epochs=2, device="cpu")), lambda epoch: None)
        for mode in ("book", "elbo")
    )
    assert VaeSettings(3).kl_weight(256) < VaeSettings(3, "elbo").kl_weight(256)
    assert book.history[-1].kl > elbo.history[-1].kl
    assert book.variances.sum() > elbo.variances.sum()


def test_a_gpu_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="device is cuda:1, but this process can use 0 GPUs"):
        last(fit({"pool": digits(3)}, 255, VaeSettings(2, device="cuda:1")), lambda epoch: None)


def test_a_loss_that_is_not_finite_ends_the_training():
    net = make_vae((16, 16), 2, np.random.default_rng(0))
    with torch.no_grad():
        net.log_variance.bias.fill_(1000.0)
    with pytest.raises(FloatingPointError, match=r"vae: the loss is (inf|nan) in epoch 1"):
        Training(net, digits(8), 255, VaeSettings(2), CPU).epoch(1)


def test_device_names():
    assert [device_fault(name) for name in ("auto", "cpu", "cuda", "cuda:12")] == [None] * 4
    assert all(device_fault(name) for name in ("gpu", "cuda:", "cuda:x", 3, None, ["cpu"]))
